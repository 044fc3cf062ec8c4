"""A whole study of generated images: checked, trained, resumed, with tables next to published numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoseg import api
from autoseg.schema.runner import GridTable
from autoseg.schema.study import StudyRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from tests import generated

CASES = 14


def study_file(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "study": 1, "name": "generated", "title": "Generated lesions", "source": "tests", "protocol": "quick",
        "folds": 2, "seeds": [0, 1],
        "datasets": [
            {
                "name": "Lesion", "converter": "folders", "archive": "drawn", "groups": "none", "cases": 99,
                "options": {"labels": "background,lesion"}, "specialist": "unet",
                "prompts": {"lesion": "Mark the lesion."},
            }
        ],
        "models": [{"name": "unet", "title": "U-Net", "variant": "16"}],
        "omnimodel": {"reader": "gemini", "title": "Image model"},
        "comparison": {"share": 0.2, "worst_cases": 1},
        "published": [
            {"metric": "mDSC", "unit": "percent", "rows": {"unet": {"Lesion": 80}}},
            {"metric": "Dice", "stratum": "hard", "unit": "percent", "rows": {"omnimodel": {"Lesion": 20}}},
        ],
        "deviations": ["the images are drawn"],
        "small": {"cases": 10, "side": 32, "steps": 2, "worst_cases": 1},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def choices(folder: Path) -> dict[str, Any]:
    return {"scale": "small", "mock_service": True, "device": "cpu", "root": folder / "root"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyRecord]:
    """The folder of a study that has run, and its record."""
    folder = tmp_path_factory.mktemp("study")
    generated.write_folders(folder / "drawn", "lesion", CASES)
    return folder, api.run_study(str(study_file(folder)), **choices(folder))


@pytest.mark.slow
def test_numbers_stand_beside_the_published_ones(done: tuple[Path, StudyRecord]) -> None:
    _, record = done
    assert not record.failed and record.scale == "small" and record.seeds == (0, 1)
    dice = next(one for one in record.numbers if one.metric == "mDSC")
    assert (dice.published, dice.values, dice.title) == (80, 4, "U-Net") and 0 <= dice.ours <= 100
    hard = next(one for one in record.numbers if one.stratum == "hard")
    assert hard.model == "omnimodel" and hard.title == "stand-in for Image model (no model)"
    assert 0 <= hard.ours <= 100 and hard.published == 20
    assert {one.metric for one in record.numbers} == {"mDSC", "Dice", "mIoU", "mPrec", "mRec"}
    assert record.hours > 0 and re.fullmatch(r"[0-9a-f]{4}(-[0-9a-f]{4}){2}", record.splits["Lesion"])


@pytest.mark.slow
def test_deviations_say_what_is_not_as_published(done: tuple[Path, StudyRecord]) -> None:
    text = "\n".join(done[1].deviations)
    assert text.startswith("SMALL SCALE") and "the images are drawn" in text and "stand-in" in text
    assert re.search(r"Lesion: \d+ images in the folds, the study had 99", text)


@pytest.mark.slow
def test_everything_is_in_the_studys_folder(done: tuple[Path, StudyRecord]) -> None:
    folder, record = done
    study = folder / "root" / "studies" / "generated_small"
    assert read_artefact(study / "study.json", StudyRecord).deviations == record.deviations
    page = (study / "study.md").read_text()
    assert "| U-Net |" in page and page.count("SMALL SCALE") >= 6
    assert (study / "folds" / "Lesion.txt").read_text().splitlines()[1] == f"id: {record.splits['Lesion']}"
    assert not (folder / "root" / "results").exists() and not (folder / "root" / "preprocessed").exists()
    assert len(record.heat_maps) == 2 and all(list((study / one).glob("*_gradcam.png")) for one in record.heat_maps)
    answers = json.loads((study / "mock" / "Lesion" / "omnimodel.json").read_text())
    assert answers["reader"] == "mock" and answers["prompts"] == {"lesion": "Mark the lesion."}


@pytest.mark.slow
def test_seeds_have_the_same_folds_and_other_weights(done: tuple[Path, StudyRecord]) -> None:
    folder, _ = done
    datasets = [Workspace(folder / "root/studies/generated_small" / f"seed_{seed}").dataset("Lesion") for seed in (0, 1)]
    assert datasets[0].splits.read_text() == datasets[1].splits.read_text()
    runs = [json.loads((dataset.fold("unet", 0) / "run.json").read_text()) for dataset in datasets]
    assert [run["seed"] for run in runs] == [0, 1] and runs[0]["identity"] != runs[1]["identity"]


@pytest.mark.slow
def test_the_same_call_trains_nothing_again(done: tuple[Path, StudyRecord]) -> None:
    folder, record = done
    tables: list[GridTable] = []
    again = api.run_study(str(folder / "study.yaml"), **choices(folder), watch=tables.append)
    assert tables and all(row.attempts == 0 and row.state == "done" for row in tables[-1].rows)
    assert [one.ours for one in again.numbers] == [one.ours for one in record.numbers]
    check = api.check_study(str(folder / "study.yaml"), **choices(folder))
    assert not check.problems and check.hours == 0 and {one.folds for one in check.trainings} == {0}


def test_everything_missing_is_listed_at_once_and_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    file = study_file(tmp_path, models=["unet", "segformer"])
    options = {**choices(tmp_path), "scale": "full", "mock_service": False}
    with pytest.raises(SeveralProblems) as caught:
        api.run_study(str(file), **options)
    problems = "\n".join(caught.value.problems)
    for part in ("data: Lesion: there is no drawn", "weights: segformer b3", "weights fetch segformer", "GEMINI_API_KEY"):
        assert part in problems, part
    assert "send" in problems and "--check" in caught.value.remedy
    assert not (tmp_path / "root").exists()
    check = api.check_study(str(file), **options)
    assert set(caught.value.problems) <= set(check.problems) and not check.trainings


@pytest.mark.slow
def test_hours_and_memory_are_checked_before_it_starts(done: tuple[Path, StudyRecord], tmp_path: Path) -> None:
    generated.write_folders(tmp_path / "drawn", "lesion", CASES)
    file = study_file(tmp_path, seeds=[0])
    with pytest.raises(SeveralProblems, match="hours: about .* the limit is 1e-06"):
        api.run_study(str(file), **choices(tmp_path), hours=1e-6)
    check = api.check_study(str(file), **choices(tmp_path))
    assert not check.problems and check.hours > 0 and check.trainings[0].memory > 0 and check.trainings[0].folds == 2
    with pytest.raises(SeveralProblems, match="(?s)cannot start.*[Mm]emory"):
        api.run_study(str(file), **choices(tmp_path), memory="1M")


@pytest.mark.slow
def test_a_dataset_in_the_place_of_another_is_a_deviation(done: tuple[Path, StudyRecord]) -> None:
    folder, _ = done
    file = folder / "other.yaml"
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["name"] = "other"
    content["datasets"][0] |= {"name": "Moles", "archive": "absent"}
    content["published"] = []
    content["comparison"]["worst_cases"] = content["small"]["worst_cases"] = 0
    content["seeds"] = [0]
    file.write_text(yaml.safe_dump(content))
    check = api.check_study(str(file), **choices(folder), use={"Moles": "Lesion"})
    assert not check.problems and check.trainings[0].dataset == "Moles"


@pytest.mark.slow
def test_a_changed_file_warns_about_finished_runs(done: tuple[Path, StudyRecord], caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = done
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content["small"]["steps"] = 4
    (folder / "changed.yaml").write_text(yaml.safe_dump(content))
    api.check_study(str(folder / "changed.yaml"), **choices(folder))
    assert "the plan of Lesion, seed 0, has changed: its finished runs stay" in caplog.text
    api.check_study(str(folder / "study.yaml"), **choices(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "tiny"}, "no scale 'tiny'"),
        ({"models": ["segformer"]}, "the study has no model segformer"),
        ({"datasets": ["Moles"]}, "the study has no dataset Moles"),
    ],
)
def test_unknown_choices_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AutosegError, match=message):
        api.check_study(str(study_file(tmp_path)), **{**choices(tmp_path), **options})
