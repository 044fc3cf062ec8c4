"""The full pipeline with one dataset of each kind: folders in, scores out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.cli import convert, evaluate, plan_and_preprocess, predict, train
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Workspace
from tests import generated

MODEL = "efficientnet_lite0_upernet"
CASES = 20
EPOCHS = 8
SETTINGS = {
    "training.epochs": EPOCHS,
    f"models.{MODEL}.input_size": "64x64",
    f"models.{MODEL}.batch_size": 4,
    f"models.{MODEL}.learning_rate": 0.002,
}
BUDGET = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module", params=generated.KINDS)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """Kind, image folder, and root after conversion, planning and training of fold 0."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    images, masks = generated.write_folders(folder, kind, CASES)
    root = folder / "root"
    specification = generated.SPECIFICATION[kind]
    arguments = ["--root", str(root), "folders", "--images", str(images), "--masks", str(masks), "--name", kind.title()]
    arguments += ["--labels", ",".join(specification.labels)]
    if specification.groups:
        arguments += ["--groups", specification.groups]
    assert convert.main(arguments) == 0
    assert plan_and_preprocess.main(["501", "--root", str(root), "--protocol", "quick", "--models", MODEL, *BUDGET]) == 0
    assert train.main(["501", MODEL, "0", "--root", str(root), "--pretrained", "auto"]) == 0
    yield kind, images, root


def test_every_stage_writes_its_artefact(pipeline: tuple[str, Path, Path]) -> None:
    kind, _, root = pipeline
    dataset = Workspace.at(root).dataset(501)
    assert dataset.short_name == kind.title()
    fingerprint = read_artefact(dataset.fingerprint, Fingerprint)
    assert len(fingerprint.cases) == CASES
    assert [c.name for c in fingerprint.classes] == list(generated.SPECIFICATION[kind].labels[1:])
    plan = read_artefact(dataset.plan, Plan)
    assert plan.models[MODEL].input_size == (64, 64)
    assert all(decision.reason for decision in plan.decisions)
    assert "training.epochs" in plan.overrides
    fold = dataset.fold(MODEL, 0)
    record = read_artefact(fold / "run.json", RunRecord)
    assert record.status == "finished" and record.epochs_done == EPOCHS
    for name in ("last.pt", "best.pt", "metrics.csv", "progress.png", "plan.json", "dataset.json"):
        assert (fold / name).stat().st_size > 0, name
    splits = read_artefact(dataset.splits, Splits)
    scores = read_artefact(fold / "validation" / "scores.json", Scores)
    assert {case.case for case in scores.cases} == set(splits.folds[0].validation)


def test_patients_never_cross_a_split(pipeline: tuple[str, Path, Path]) -> None:
    kind, _, root = pipeline
    splits = read_artefact(Workspace.at(root).dataset(501).splits, Splits)
    for fold in splits.folds:
        assert not set(fold.train) & set(fold.validation)
        if kind == "heart":
            patients = [{name.split("_")[0] for name in side} for side in (fold.train, fold.validation)]
            assert not patients[0] & patients[1]
    validated = [case for fold in splits.folds for case in fold.validation]
    assert len(validated) == len(set(validated)) == CASES


def test_model_learns_to_predict(pipeline: tuple[str, Path, Path], tmp_path: Path) -> None:
    """The drawn objects are easy: a short training must find them, at original size."""
    _, images, root = pipeline
    masks = tmp_path / "masks"
    arguments = ["-i", str(images), "-o", str(masks), "-d", "501", "-m", MODEL, "--root", str(root), "--tta", "--overlays"]
    assert predict.main([*arguments, "--probabilities"]) == 0
    for path in sorted(images.iterdir()):
        mask = cv2.imread(str(masks / path.name), cv2.IMREAD_UNCHANGED)
        assert mask.shape == cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape[:2]
    assert json.loads((masks / "prediction.json").read_text())["folds"] == [0]
    assert evaluate.main([str(masks), str(images.parent / "masks")]) == 0
    scores = read_artefact(masks / "scores.json", Scores)
    best = max(summary.pooled["dice"] for summary in scores.classes.values())
    assert best > 0.7


def test_python_interface_gives_the_same_mask(pipeline: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, images, root = pipeline
    path = sorted(images.iterdir())[0]
    assert predict.main(["-i", str(path), "-o", str(tmp_path), "-d", "501", "-m", MODEL, "--root", str(root)]) == 0
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    array = array[..., ::-1] if array.ndim == 3 else array
    mask = api.Predictor.load(501, MODEL, root=root)(array)
    np.testing.assert_array_equal(mask, cv2.imread(str(tmp_path / path.name), cv2.IMREAD_UNCHANGED))


def test_finished_training_is_not_repeated(pipeline: tuple[str, Path, Path]) -> None:
    _, _, root = pipeline
    best = Workspace.at(root).dataset(501).fold(MODEL, 0) / "best.pt"
    before = best.stat().st_mtime_ns
    assert train.main(["501", MODEL, "0", "--root", str(root), "--pretrained", "auto"]) == 0
    assert best.stat().st_mtime_ns == before


@pytest.mark.parametrize("policy", ["flag", "replace", "union", "consensus"])
def test_doubtful_cases_are_read_twice(pipeline: tuple[str, Path, Path], tmp_path: Path, policy: str) -> None:
    """The second reader is a bundle of the first, so every policy must keep the first masks."""
    _, images, root = pipeline
    bundle = tmp_path / "second.zip"
    api.export(501, [MODEL], bundle, root=root)
    some = sorted(images.iterdir())[:3]
    arguments = ["--root", str(root), "-i", *map(str, some), "-d", "501", "-m", MODEL]
    assert predict.main([*arguments, "-o", str(tmp_path / "once")]) == 0
    second_reader = ["--second-reader", str(bundle), "--min-expected-dice", "1", "--policy", policy]
    assert predict.main([*arguments, "-o", str(tmp_path / "twice"), *second_reader]) == 0
    record = json.loads((tmp_path / "twice" / "second_reader.json").read_text())
    by = {"flag": "first", "replace": "second", "union": "both", "consensus": "both"}[policy]
    trusts = {reading["case"]: reading["confidence"] for reading in record["cases"]}
    for reading in record["cases"]:
        assert reading["reader"] == (by if trusts[reading["case"]] < 1 else "first")
        assert reading["reason"]
    for image in some:
        once = cv2.imread(str(tmp_path / "once" / image.name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(cv2.imread(str(tmp_path / "twice" / image.name), cv2.IMREAD_UNCHANGED), once)


def test_confident_cases_need_no_second_reader(pipeline: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, images, root = pipeline
    image = str(sorted(images.iterdir())[0])
    arguments = ["--root", str(root), "-i", image, "-o", str(tmp_path), "-d", "501", "-m", MODEL]
    assert predict.main([*arguments, "--second-reader", MODEL, "--min-expected-dice", "0"]) == 0
    assert not (tmp_path / "second_reader").exists()
    assert predict.main([*arguments, "--second-reader", MODEL, "--min-expected-dice", "2"]) == 2


def test_external_evaluation_on_another_dataset(pipeline: tuple[str, Path, Path], tmp_path: Path) -> None:
    """Both polyp classes map to the lesion class of the other dataset; labels without a counterpart are an error."""
    kind, _, root = pipeline
    if kind != "polyps":
        return
    images, masks = generated.write_folders(tmp_path, "lesion", 6)
    arguments = ["--root", str(root), "folders", "--images", str(images), "--masks", str(masks)]
    assert convert.main([*arguments, "--name", "Other", "--labels", "background,lesion"]) == 0
    external_arguments = ["501", "--external", "Other", "--root", str(root)]
    assert evaluate.main(external_arguments) == 2
    assert evaluate.main([*external_arguments, "--map", "neoplastic=lesion", "--map", "non_neoplastic=lesion"]) == 0
    (tested,) = api.evaluate_external(501, "Other", labels={"neoplastic": "lesion", "non_neoplastic": "lesion"}, root=root)
    frame = tested.to_frame()
    assert list(frame["dataset"]) == ["Dataset501_Polyps", "Dataset502_Other"] and frame["cases"][1] == 6
    assert f"mDSC {frame['micro.dice'][1]:.3f}" in repr(tested)
    dataset = Workspace.at(root).dataset(501)
    folder = dataset.fold(MODEL, 0) / "external" / Workspace.at(root).dataset("Other").name
    external, internal = (
        read_artefact(scores_folder / "scores.json", Scores) for scores_folder in (folder, folder / "internal")
    )
    assert len(external.cases) == 6 and set(external.classes) == set(internal.classes) == {"lesion"}
    held_out = read_artefact(dataset.fold(MODEL, 0) / "validation" / "scores.json", Scores)
    assert {case.case for case in internal.cases} == {case.case for case in held_out.cases}
    # Merging removes confusions between the two classes, so Dice is at least that of the worse class.
    assert internal.classes["lesion"].pooled["dice"] >= min(one.pooled["dice"] for one in held_out.classes.values())
    mask = cv2.imread(str(folder / "lesion_000.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) <= {0, 1, 2}
