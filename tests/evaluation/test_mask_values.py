"""Masks as people have them: 0 and 255, JPEG, palettes, photographs by mistake, folders swapped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from autoseg import api
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.prediction import PredictionRecord
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_artefact

SIDE = 60


def disc(value: int, index: int, other: int = 0) -> np.ndarray:
    """A disc of one value with a core of another (0: none)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(rows - 25 - index, columns - 30)
    label = np.where(distance < 15, value, 0)
    return np.where((distance < 6) & (other > 0), other, label).astype(np.uint8)


def write(folder: Path, masks: list[np.ndarray], suffix: str = ".png") -> Path:
    folder.mkdir(exist_ok=True)
    for number, mask in enumerate(masks):
        assert cv2.imwrite(str(folder / f"case_{number}{suffix}"), mask)
    return folder


def photograph(index: int) -> np.ndarray:
    random = np.random.default_rng(index)
    return cv2.GaussianBlur(random.integers(0, 255, (SIDE, SIDE), np.uint8), (5, 5), 0)


def record(folder: Path, labels: dict[str, int | tuple[int, ...]]) -> None:
    content = PredictionRecord(
        dataset="Dataset501_Polyp", models=("unet",), folds=(0,), identities={}, labels=labels, mirror=(), device="cpu",
        precision="fp32", seconds=1.0, cases=(),
    )  # fmt: skip
    write_artefact(folder / "prediction.json", content)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Masks of autoseg_predict: class numbers, and prediction.json."""
    folder = write(tmp_path / "predictions", [disc(1, index) for index in range(3)])
    record(folder, {"background": 0, "lesion": 1})
    return folder


def test_references_of_0_and_255_are_read_as_in_convert(tmp_path, predictions, caplog):
    references = write(tmp_path / "references", [disc(255, index) for index in range(3)])
    with caplog.at_level("INFO", "autoseg"):
        scores = api.evaluate(predictions, references)
    assert list(scores.classes) == ["lesion"] and scores.overall["micro.dice"] == 1
    assert any("references" in note and "255 became 1" in note for note in scores.notes)
    assert "255 became 1" in caplog.text
    assert read_artefact(predictions / "scores.json", Scores).notes == scores.notes


def test_jpeg_references_are_read_as_in_convert(tmp_path, predictions):
    references = write(tmp_path / "references", [disc(255, index) for index in range(3)], ".jpg")
    scores = api.evaluate(predictions, references)
    assert scores.overall["micro.dice"] > 0.98 and any("JPEG" in note for note in scores.notes)


def test_jpeg_references_are_never_scored_by_their_raw_values(tmp_path):
    """Without any names too: JPEG noise around 1 is no class."""
    predictions = write(tmp_path / "predictions", [disc(1, index) for index in range(3)])
    references = write(tmp_path / "references", [disc(255, index) for index in range(3)], ".jpg")
    scores = api.evaluate(predictions, references)
    assert list(scores.classes) == ["1"] and scores.overall["micro.dice"] > 0.98


def test_several_classes_by_order(tmp_path):
    predictions = write(tmp_path / "predictions", [disc(1, index, 2) for index in range(3)])
    references = write(tmp_path / "references", [disc(100, index, 200) for index in range(3)])
    record(predictions, {"background": 0, "disc": 1, "core": 2})
    scores = api.evaluate(predictions, references)
    assert {name: one.pooled["dice"] for name, one in scores.classes.items()} == {"disc": 1, "core": 1}
    # One of two classes: nobody can say which.
    write(references, [disc(100, index) for index in range(3)])
    with pytest.raises(AutosegError, match=r"(?s)references.*ambiguous"):
        api.evaluate(predictions, references)


def test_both_folders_with_0_and_255(tmp_path):
    folders = [write(tmp_path / name, [disc(255, index) for index in range(3)]) for name in ("predictions", "references")]
    assert api.evaluate(*folders).overall["micro.dice"] == 1


def test_masks_of_another_program_for_a_described_dataset(tmp_path):
    """The references are class numbers of dataset.json, the predictions 0 and 255."""
    predictions = write(tmp_path / "predictions", [disc(255, index) for index in range(3)])
    raw = tmp_path / "raw"
    raw.mkdir()
    references = write(raw / "labelsTs", [disc(1, index) for index in range(3)])
    spec = DatasetSpec(
        channel_names={"0": "R"}, labels={"background": 0, "polyp": 1, "ignore": 2}, numTraining=3, file_ending=".png"
    )
    write_artefact(raw / "dataset.json", spec)
    scores = api.evaluate(predictions, references)
    assert scores.classes["polyp"].pooled["dice"] == 1 and any("predictions" in note for note in scores.notes)


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_photographs_are_refused(tmp_path, described, side):
    masks = {"predictions": [disc(1, index) for index in range(3)], "references": [disc(1, index) for index in range(3)]}
    masks[side] = [photograph(index) for index in range(3)]
    folders = {name: write(tmp_path / name, content) for name, content in masks.items()}
    if described:
        record(folders["predictions"], {"background": 0, "lesion": 1})
    with pytest.raises(SeveralProblems, match=rf"(?s){side}.case_0.png") as caught:
        api.evaluate(folders["predictions"], folders["references"])
    assert "values" in str(caught.value) and not (folders["predictions"] / "scores.json").exists()


def test_jpeg_photographs_are_refused(tmp_path, predictions):
    references = write(tmp_path / "references", [photograph(index) for index in range(3)], ".jpg")
    with pytest.raises(SeveralProblems, match="(?s)JPEG.*PNG"):
        api.evaluate(predictions, references)


def test_one_smoothed_mask_among_many_is_named(tmp_path, predictions):
    masks = [disc(255, index) for index in range(3)]
    masks[1] = cv2.GaussianBlur(masks[1], (3, 3), 0)
    with pytest.raises(SeveralProblems, match=r"case_1.png has the values"):
        api.evaluate(predictions, write(tmp_path / "references", masks))


def test_swapped_folders_are_refused_with_the_right_call(tmp_path, predictions):
    references = write(tmp_path / "references", [disc(1, index) for index in range(3)])
    with pytest.raises(AutosegError, match=rf"(?s)swapped.*autoseg_evaluate {predictions} {references}"):
        api.evaluate(references, predictions)
    assert not (references / "scores.json").exists()


def test_a_datasets_labels_given_as_predictions_are_refused(tmp_path):
    other = write(tmp_path / "other_program", [disc(1, index) for index in range(3)])
    raw = tmp_path / "raw"
    raw.mkdir()
    references = write(raw / "labelsTr", [disc(1, index) for index in range(3)])
    spec = DatasetSpec(channel_names={"0": "R"}, labels={"background": 0, "polyp": 1}, numTraining=3, file_ending=".png")
    write_artefact(raw / "dataset.json", spec)
    with pytest.raises(AutosegError, match=rf"(?s)swapped.*autoseg_evaluate {other} {references}"):
        api.evaluate(references, other)


def test_the_same_name_with_another_value_is_refused(tmp_path):
    predictions = write(tmp_path / "predictions", [disc(1, index, 2) for index in range(3)])
    record(predictions, {"background": 0, "disc": 1, "core": 2})
    raw = tmp_path / "raw"
    raw.mkdir()
    references = write(raw / "labelsTs", [disc(2, index, 1) for index in range(3)])
    labels: dict[str, int | tuple[int, ...]] = {"background": 0, "core": 1, "disc": 2}
    spec = DatasetSpec(channel_names={"0": "R"}, labels=labels, numTraining=3, file_ending=".png")
    write_artefact(raw / "dataset.json", spec)
    with pytest.raises(AutosegError, match="(disc is 1|core is 2) in .*prediction.json and [12] in"):
        api.evaluate(predictions, references)


def test_names_of_regions_come_from_the_prediction(tmp_path):
    folders = [write(tmp_path / name, [disc(1, index, 2) for index in range(3)]) for name in ("predictions", "references")]
    record(folders[0], {"background": 0, "whole": (1, 2), "core": (2,)})
    assert list(api.evaluate(*folders).classes) == ["whole", "core"]


def test_scores_are_written_only_into_a_prediction_folder_or_where_asked(tmp_path, predictions):
    references = write(tmp_path / "references", [disc(1, index) for index in range(3)])
    photos = write(tmp_path / "photos", [disc(1, index) for index in range(3)])
    before = sorted(photos.iterdir())
    api.evaluate(photos, references)
    assert sorted(photos.iterdir()) == before and not (references / "scores.json").exists()
    api.evaluate(photos, references, tmp_path / "scores")
    assert sorted(photos.iterdir()) == before and (tmp_path / "scores" / "scores.csv").is_file()
    api.evaluate(predictions, references)
    assert (predictions / "scores.json").is_file()


def test_palette_masks_are_class_numbers(tmp_path, predictions):
    references = tmp_path / "references"
    references.mkdir()
    for index in range(3):
        picture = Pillow.fromarray(disc(1, index), "P")
        picture.putpalette([0, 0, 0, 250, 60, 20])
        picture.save(references / f"case_{index}.png")
    assert api.evaluate(predictions, references).overall["micro.dice"] == 1
