"""Every file autoseg writes is read again by later releases: `samples` holds one of each version, as that release wrote it."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import autoseg.schema
from autoseg.metrics.overlap import Counts, total
from autoseg.prediction.progress_log import UNFINISHED, finished_cases
from autoseg.preprocessing.array_dataset import preprocessing_hash
from autoseg.schema import serde
from autoseg.schema.arrays import ArrayIndex
from autoseg.schema.artefact import Artefact
from autoseg.schema.bundle import Bundle
from autoseg.schema.comparison import Comparison
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.explanation import Explanation
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.omnimodel import OmnimodelRecord
from autoseg.schema.onnx import OnnxDescription
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.prediction import BestChoice, Calibration, PostProcessing, PredictionRecord
from autoseg.schema.run import RateSearch, RunRecord
from autoseg.schema.scores import Scores
from autoseg.schema.second_reader import ReaderStudy, SecondReading
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.training.config_hash import config_hash as run_identity
from autoseg.training.config_hash import digest

SAMPLES = Path(__file__).parent / "samples"
for _module in [f"autoseg.schema.{one.name}" for one in pkgutil.iter_modules(autoseg.schema.__path__)]:
    importlib.import_module(_module)
importlib.import_module("dataset_conversion.report")
ARTEFACTS = sorted(
    (
        one
        for one in Artefact.__subclasses__()
        if one.__module__.split(".")[0] in ("autoseg", "dataset_conversion") and one.NAME != "speed"
    ),
    key=lambda one: one.NAME,
)
BY_NAME = {kind.NAME: kind for kind in ARTEFACTS}


def sample(kind: type[Artefact], version: int = 1) -> Path:
    return SAMPLES / f"{kind.NAME}_v{version}.json"


def read(kind, version=1):
    return read_artefact(sample(kind, version), kind)


def named(kind: type[Artefact]) -> str:
    return kind.NAME


def words(artefact: Artefact) -> set[str]:
    """Everything that stands between quotes in its file."""
    return set(re.findall(r'"([^"]*)"', serde.to_json(artefact)))


@pytest.mark.parametrize("kind", ARTEFACTS, ids=named)
def test_every_artefact_has_a_version_a_step_from_each_older_one_and_a_sample_of_each(kind):
    assert BY_NAME[kind.NAME] is kind, "two artefacts of one name"
    assert len(kind.MIGRATIONS) + 1 == kind.VERSION
    missing = [version for version in range(1, kind.VERSION + 1) if not sample(kind, version).is_file()]
    assert not missing, f"store a file of version {missing} in {SAMPLES}, written by the release that has it"


def test_every_sample_is_of_an_artefact():
    versions = {f"{kind.NAME}_v{version}" for kind in ARTEFACTS for version in range(1, kind.VERSION + 1)}
    assert {path.stem for path in SAMPLES.glob("*.json")} == versions


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_files_of_every_version_are_read_and_written_in_the_present_one(path, tmp_path):
    kind = BY_NAME[path.stem.rpartition("_v")[0]]
    artefact = read_artefact(path, kind)
    write_artefact(tmp_path / "again.json", artefact)
    content = json.loads((tmp_path / "again.json").read_text())
    assert (content["artefact"], content["schema_version"]) == (kind.NAME, kind.VERSION)
    # Not-a-number is unequal to itself, the text of it is not.
    assert serde.to_json(read_artefact(tmp_path / "again.json", kind)) == serde.to_json(artefact)


@pytest.mark.parametrize("kind", ARTEFACTS, ids=named)
def test_a_newer_version_asks_for_an_update(kind, tmp_path):
    content = json.loads(sample(kind).read_text())
    (tmp_path / "new.json").write_text(json.dumps({**content, "schema_version": kind.VERSION + 1, "unheard_of": 1}))
    with pytest.raises(AutosegError, match=r"new.json: it was written by a newer release(.|\n)*update autoseg"):
        read_artefact(tmp_path / "new.json", kind)


@pytest.mark.parametrize("kind", [one for one in ARTEFACTS if not one.UNMARKED], ids=named)
def test_a_file_without_a_version_is_not_ours(kind, tmp_path):
    content = json.loads(sample(kind).read_text())
    content.pop("schema_version")
    (tmp_path / "bare.json").write_text(json.dumps(content))
    with pytest.raises(AutosegError, match=r"bare.json: it has no schema_version: autoseg did not write it"):
        read_artefact(tmp_path / "bare.json", kind)


@pytest.mark.parametrize("kind", [one for one in ARTEFACTS if one.MIGRATIONS], ids=named)
def test_a_damaged_file_of_an_older_version_is_an_error_of_the_user(kind, tmp_path):
    """Steps meet content that nobody has checked yet."""
    (tmp_path / "old.json").write_text('{"schema_version": 1}')
    with pytest.raises(AutosegError, match=r"old.json: "):
        read_artefact(tmp_path / "old.json", kind)


def test_an_artefact_of_another_kind_is_named(tmp_path):
    write_artefact(tmp_path / "x.json", read(Splits))
    with pytest.raises(AutosegError, match=r"x.json: expected an artefact of the kind plan, found 'splits'"):
        read_artefact(tmp_path / "x.json", Plan)


def test_a_trained_fold_of_version_1_is_still_the_same_run():
    """Identities are hashes of what the files say: a migration must not change them, or no run could be resumed after it."""
    plan, spec, splits, record = read(Plan), read(DatasetSpec), read(Splits), read(RunRecord)
    model = plan.models[record.model]
    parts = run_identity(
        plan, replace(model, learning_rate=record.learning_rate), spec.label_scheme(), splits.folds[record.fold], ""
    )
    assert digest(parts) == record.identity


def test_arrays_of_version_1_still_belong_to_their_plan():
    plan, fingerprint, index = read(Plan), read(Fingerprint), read(ArrayIndex)
    (preprocessing,) = plan.preprocessing.values()
    assert index.identity == preprocessing_hash(preprocessing, fingerprint.content_hash)
    assert set(index.cases) == {case.case for case in fingerprint.cases}
    assert index.cases["patient000_slice0"].shape == (64, 64, 1)


def test_the_documentation_lists_every_artefact_with_its_version():
    text = (SAMPLES.parents[2] / "documentation" / "artefacts.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(version) for name, version in rows} == {kind.NAME: kind.VERSION for kind in ARTEFACTS}


def test_a_plan_of_version_1():
    plan = read(Plan)
    assert plan.training.epochs == 2 and plan.overrides["training.epochs"] == 2
    (key, config), = plan.preprocessing.items()
    assert (key, config.key, config.geometry) == ("whole_64x64", "whole_64x64", "resize")
    assert {model.preprocessing for model in plan.models.values()} == {key}
    assert all(decision.reason for decision in plan.decisions)
    assert not {"time_formats", "because", "preparation", "preparations"} & words(plan)


def test_overrides_of_a_plan_of_version_1_name_the_fields_of_today():
    content = json.loads(sample(Plan).read_text())
    content["overrides"] = {
        "geometry": "whole",
        "side": 64,
        "preparations.whole_64x64.scale": 1,
        "models.unet.preparation": "x",
    }
    content["decisions"].append({"subject": "models.unet.preparation", "value": "x", "because": "set", "source": ""})
    plan = serde.from_content(content, Plan)
    assert plan.overrides == {
        "geometry": "resize", "side": 64, "preprocessing.whole_64x64.scale": 1, "models.unet.preprocessing": "x",
    }  # fmt: skip
    assert plan.decisions[-1].subject == "models.unet.preprocessing"


def test_splits_of_version_1():
    splits = read(Splits)
    assert len(splits.folds) == 2 and "patients" in splits.reason


@pytest.mark.parametrize("kind", [PredictionRecord, BestChoice, Bundle], ids=named)
def test_a_calibration_of_version_1(kind):
    expected = Calibration(
        cases=8, slope=0.9, intercept=0.05, mean_absolute_error=0.04, score="soft_dice", empty_offset=-0.1
    )
    assert read(kind).calibration == expected


@pytest.mark.parametrize("kind", [BestChoice, Bundle], ids=named)
def test_post_processing_of_version_1(kind):
    steps = PostProcessing(min_object_fraction=0.001, keep_largest=True, fill_holes=True)
    assert read(kind).postprocessing == {"myocardium": steps}


def test_a_choice_of_version_2_has_no_nested_dice():
    """Its Dice with post-processing counted classes in neither mask, the one without did not."""
    choice = read(BestChoice, 2)
    assert math.isnan(choice.dice) and math.isnan(choice.nested_dice) and choice.nested == () and choice.dice_before == 0.13961
    content = {**json.loads(sample(BestChoice, 2).read_text()), "postprocessing": {}, "dice": 0.5}
    assert serde.from_content(content, BestChoice).dice == 0.13961
    assert "not known" in repr(choice) and "takes two folds" in choice.dice_notes()[1]


def test_a_bundle_of_version_1_lost_its_second_version_number():
    bundle = read(Bundle)
    assert bundle.dataset == "Dataset501_Heart" and [member.fold for member in bundle.members] == [0]
    assert "format" not in words(bundle)


def test_an_unfinished_prediction_of_version_1_is_continued(tmp_path):
    """Its lines had a version each, and no hash of the mask: those masks are made again."""
    shutil.copy(SAMPLES / "prediction_unfinished_v1.jsonl", tmp_path / UNFINISHED)
    record = read(PredictionRecord)
    for case in record.cases:
        (tmp_path / case.output).touch()
    with (tmp_path / UNFINISHED).open("a") as stream:
        stream.write('{"schema_version": 1, "case": "cut o')
    assert finished_cases(tmp_path, replace(record, cases=())) == {}
    with pytest.raises(AutosegError, match="masks of another run"):
        finished_cases(tmp_path, replace(record, mirror=(0, 1)))


def test_a_second_reader_of_version_1():
    first = read(SecondReading).cases[0]
    assert (first.case, first.confidence) == ("patient000_slice0", 0.3378) and first.reason.startswith("0.34 is below 0.6")


def test_risk_and_coverage_of_version_1():
    first = read(ReaderStudy).areas[0]
    assert (first.aurc, first.best, first.random) == (0.8992, 0.8111, 0.8604)


def test_questions_of_version_1():
    questions = read(OmnimodelRecord).questions
    assert [(one.outcome, one.requests, one.message) for one in questions[:3]] == [
        ("mask", 1, "Here it is."), ("refused", 1, "IMAGE_SAFETY"), ("echo", 1, "the image itself came back"),
    ]  # fmt: skip


def test_an_explanation_of_version_1():
    first = read(Explanation).heatmaps[0]
    assert (first.file, first.ring_width) == ("patient002_slice0_myocardium_gradcam.png", 3)


def test_a_comparison_and_a_conversion_and_an_onnx_description_of_version_1():
    assert [len(one.models) for one in read(Comparison).datasets] == [2] and "drops" not in words(read(Comparison))
    assert read(BY_NAME["conversion"]).near_duplicates == () and read(BY_NAME["conversion"]).training == 8
    assert read(OnnxDescription).geometry == "resize"


def test_scores_of_version_1_get_the_micro_average_of_their_counts():
    scores = read(Scores)
    summed = total(Counts(one.tp, one.fp, one.fn) for case in scores.cases for one in case.classes.values())
    for name in ("dice", "iou", "precision", "recall"):
        assert scores.overall[f"micro.{name}"] == getattr(summed, name)
    pooled = [one.pooled["dice"] for one in scores.classes.values()]
    assert scores.overall["class_mean.dice"] == pytest.approx(sum(pooled) / len(pooled)) != scores.overall["micro.dice"]
    assert not any(key.startswith("pooled.") for key in scores.overall)


def test_a_comparison_of_version_2_knows_micro_averages_of_one_class_only():
    """Only means over the classes were stored."""
    several = read(Comparison, 2)
    (dataset,) = several.datasets
    for model in dataset.models:
        assert math.isnan(model.overall["micro.dice"].mean) and model.overall["micro.dice"].folds == {} == model.intervals
        assert 0 <= model.overall["class_mean.dice"].mean < 1
    assert all(math.isnan(one.mean) and one.best == "" for one in dataset.families)
    assert all(math.isnan(value) for row in several.across.values() for value in row.values())
    assert "with Dice as class mean 0." in repr(several)
    content = json.loads(sample(Comparison, 2).read_text())
    for one in content["datasets"]:
        one["classes"] = one["classes"][:1]
        for model in one["models"]:
            model["classes"] = dict(list(model["classes"].items())[:1])
    across = {model: dict(row) for model, row in content["across"].items()}
    single = serde.from_content(content, Comparison)
    (dataset,) = single.datasets
    assert all(model.overall["micro.dice"] == model.overall["class_mean.dice"] for model in dataset.models)
    assert single.across == across and "with mDSC 0." in repr(single) and dataset.families[0].best


def test_runs_and_searches_of_version_1_have_class_means():
    record, search = read(RunRecord), read(RateSearch)
    assert record.class_mean_dice == pytest.approx(sum(record.dice.values()) / 3) and math.isnan(record.micro_dice)
    assert (record.monitor, search.monitor) == ("class_mean.dice", "class_mean.dice")
    assert record.search.tried[0].class_mean_dice == search.tried[0].class_mean_dice == 0.022401944033109314
    content = {**json.loads(sample(RunRecord).read_text()), "dice": {"disc": 0.5}, "best_dice": 0.5}
    assert serde.from_content(content, RunRecord).micro_dice == 0.5
    assert "Dice 0.163 (class mean)" in record.dice_text


def test_a_grid_of_version_2_shows_no_class_mean_as_mdsc():
    assert all(math.isnan(row.micro_dice) and row.epochs_done for row in read(BY_NAME["grid"], 2).rows)
