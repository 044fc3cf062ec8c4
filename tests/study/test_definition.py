"""Study files: those that come with autoseg, and every fault of a user's file in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from autoseg.planning.prompts import BREAST, POLYP, VESSELS
from autoseg.schema.study import Study
from autoseg.study.definition import published_studies, read_study
from autoseg.support.errors import AutosegError

SMALL: dict[str, Any] = {
    "study": 1, "name": "mine", "title": "My study", "source": "me", "protocol": "quick",
    "datasets": [{"name": "A", "converter": "folders", "archive": "a"}], "models": ["unet"],
}  # fmt: skip


def read(folder: Path, **changes: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**SMALL, **changes}.items() if value is not None}))
    return read_study(str(path))[0]


def published(study: Study) -> dict[tuple[str, str, str, str, str], tuple[float, ...]]:
    return {
        (table.metric, table.of, table.stratum, model, dataset): numbers
        for table in study.published
        for model, row in table.rows.items()
        for dataset, numbers in row.items()
    }


def test_the_first_study_has_its_models_datasets_and_numbers() -> None:
    study, base = read_study("borst_kounev_2026")
    assert base is None and study.protocol == "benchmark" and study.folds == 5
    assert {one.name: one.cases for one in study.datasets} == {"NeoPolyp": 945, "CAMUS": 1996, "ISIC2018": 3565}
    assert len(study.models) == 11 and {len(members) for members in study.comparison.families.values()} == {5, 6}
    assert study.comparison.worst_cases == 50
    numbers = published(study)
    assert len([key for key in numbers if key[0] == "mDSC"]) == 33
    means = {
        model: sum(numbers["mDSC", "", "", model, dataset][0] for dataset in ("NeoPolyp", "CAMUS", "ISIC2018")) / 3
        for model in (one.name for one in study.models)
    }
    # The study's own column of means, to its precision.
    expected = {
        "vwformer_mit": 91.0, "vwformer_convnext": 90.9, "transnext": 90.9, "internimage": 90.8, "segformer": 90.7,
        "segnext": 90.7, "swin_umamba": 90.5, "hiformer": 88.8, "ukan": 87.9, "missformer": 87.9, "unet": 87.2,
    }  # fmt: skip
    assert {name: round(mean, 1) for name, mean in means.items()} == expected
    assert numbers["Dice", "non_neoplastic", "", "ukan", "NeoPolyp"] == (36.9, 12.2)


def test_the_second_study_has_its_prompts_strata_and_numbers() -> None:
    study, _ = read_study("zhang_2025")
    assert {one.name: one.specialist for one in study.datasets} == {
        "CVCColonDB": "hsnet", "FIVES": "unet", "BUSI": "mask2former",
    }  # fmt: skip
    assert [prompt for one in study.datasets for prompt in one.prompts.values()] == [POLYP, VESSELS, BREAST]
    assert study.comparison.share == 0.05 and study.omnimodel is not None and study.omnimodel.reader == "gemini"
    numbers = published(study)
    assert len(numbers) == 24
    assert numbers["HD95", "", "hard", "omnimodel", "FIVES"] == (408.9,)
    assert numbers["Dice", "", "easy", "hsnet", "CVCColonDB"] == (97.4,)


def test_every_shipped_study_trains_only_what_there_is() -> None:
    from dataset_conversion.registry import converter

    for name in published_studies():
        study, _ = read_study(name)
        assert study.name == name
        for dataset in study.datasets:
            row = converter(dataset.converter)
            assert not row.general and set(dataset.options) <= {option.name for option in row.options}


def test_short_forms(tmp_path: Path) -> None:
    rows = {"unet": {"A": 80}}
    study = read(tmp_path, published=[{"metric": "mDSC", "unit": "percent", "rows": rows}])
    assert study.models[0].name == "unet" and study.datasets[0].archive == ("a",)
    assert study.published[0].rows == {"unet": {"A": (80,)}} and study.seeds == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "benchmrk"}, "protocol: expected one of auto, benchmark, quick, found 'benchmrk'"),
        ({"seed": 3}, "unknown field seed (did you mean seeds?)"),
        ({"name": "a/b"}, "name: expected the name of a file"),
        ({"title": None}, "title is missing"),
        ({"study": 2}, "study: version 2 needs a newer autoseg"),
        ({"models": ["unt"]}, "models[0].name: there is no model 'unt'; did you mean unet"),
        ({"models": ["unet", "unet"]}, "models: unet is listed twice"),
        ({"models": []}, "models: expected at least one"),
        ({"datasets": []}, "datasets: expected at least one"),
        ({"seeds": []}, "seeds: expected at least one"),
        ({"seeds": [0, -1]}, "seeds[1]: expected a whole number from 0"),
        ({"folds": 1}, "folds: expected a whole number from 2"),
        ({"models": [{"name": "unet", "datasets": ["B"]}]}, "models[0].datasets: expected one of A, found 'B'"),
        ({"models": [{"name": "unet", "seeds": [4]}]}, "models[0].seeds: expected one of 0, found 4"),
        ({"comparison": {"families": {"x": ["segformer"]}}}, "comparison.families.x: expected one of unet"),
        ({"comparison": {"external": [{"dataset": "A", "other": "C"}]}}, "external[0]: expected one of A, found 'C'"),
        ({"comparison": {"share": 0.7}}, "comparison.share: expected a number above 0 and up to 0.5"),
        ({"published": [{"metric": "DSC", "unit": "percent", "rows": {}}]}, "published[0].metric: expected one of mDSC"),
        (
            {"published": [{"metric": "mDSC", "unit": "percent", "rows": {"unet": {"A": [1, 2, 3]}}}]},
            "published[0].rows.unet.A: expected a mean, or a mean and a deviation, found 3 numbers",
        ),
        (
            {"published": [{"metric": "mDSC", "unit": "percent", "rows": {"omnimodel": {"A": 1}}}]},
            "published[0].rows: expected one of unet, found 'omnimodel'",
        ),
        ({"published": [{"metric": "mDSC", "unit": "percent", "rows": {"unet": {"A": "80"}}}]}, "expected a list"),
        ({"datasets": [{"name": "A", "converter": "x"}]}, "datasets[0].archive is missing"),
        ({"datasets": 5}, "datasets: expected a list, found 5"),
        ({"small": {"cases": 0}}, "small.cases: expected a whole number from 1"),
    ],
)
def test_faults_are_named_by_their_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AutosegError) as caught:
        read(tmp_path, **changes)
    assert message in str(caught.value) and "study.yaml is no study:" in str(caught.value)


def test_all_faults_are_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(AutosegError) as caught:
        read(tmp_path, protocol="x", seed=1, title=None, folds=0)
    assert all(word in str(caught.value) for word in ("protocol:", "unknown field seed", "title is missing", "folds:"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a", "is no YAML: line 1, column 9"),
        ("a: b: c", "is no YAML: line 1"),
        ("\tname: x", "is no YAML: line 1"),
        ("", "it is empty"),
        ("# only a comment\n", "it is empty"),
        ("- 1\n- 2\n", "expected an object, found [1, 2]"),
        ("just words", "expected an object, found 'just words'"),
        ("study: 1\nname: x\nstudy: 1\n", "line 3: 'study' is given twice"),
        ("models:\n  - {name: a, name: b}\n", "line 2: 'name' is given twice"),
        ("a: &x [1]\nb: *x\n", "references (&, *) are not supported"),
        ("a: !!python/object/apply:os.system ['true']\n", "is no YAML"),
        ("[" * 5000, "is n"),
        ("a: 1\n---\nb: 2\n", "is no YAML"),
    ],
)
def test_bad_yaml_gets_one_clear_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(AutosegError) as caught:
        read_study(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value) and "documentation/study.md" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12


def test_missing_large_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="there is no study file"):
        read_study(str(tmp_path / "absent.yaml"))
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(AutosegError, match="1 MiB: no study file"):
        read_study(str(tmp_path / "large.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AutosegError, match="cannot be read"):
        read_study(str(tmp_path / "binary.yaml"))
    with pytest.raises(AutosegError, match="no study 'borst_kounev'\n.*did you mean borst_kounev_2026"):
        read_study("borst_kounev")
