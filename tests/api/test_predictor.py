"""`api.Predictor`: arrays and lists of arrays in, masks out, errors for invalid images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg import api
from autoseg.io import write_image
from autoseg.prediction import predictor as prediction
from autoseg.prediction.bundle import export_bundle
from autoseg.support.workspace import Dataset
from tests.prediction.stand_in import Bright, picture, write_fold


@pytest.fixture
def dataset(tmp_path: Path, bright_is_registered: None) -> Dataset:
    """A dataset with two trained folds of one model."""
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    dataset.raw.mkdir(parents=True)
    write_fold(dataset.fold("bright", 0), 0)
    write_fold(dataset.fold("bright", 1), 1, Bright(level=0.45))
    return dataset


@pytest.fixture
def predictor(dataset: Dataset) -> api.Predictor:
    return api.Predictor.load("Tiny", "bright", 0, device="cpu", root=dataset.root)


def test_axis_order_does_not_change_the_mask(predictor: api.Predictor) -> None:
    image, mask = picture()
    predicted = predictor(image)
    assert predicted.shape == mask.shape and predicted.dtype == np.uint8 and (predicted == mask).mean() > 0.99
    assert np.array_equal(predictor(image.transpose(1, 2, 0)), predicted)
    assert np.array_equal(predictor(image[0]), predicted)
    assert np.array_equal(predictor(torch.from_numpy(image)), predicted)
    assert predictor.probabilities(image).shape == (2, *mask.shape) and predictor.labels == ("background", "bright")
    assert predictor.assess(image).pixels == {"bright": int(predicted.sum())}


def test_lists_of_different_sizes_give_lists(predictor: api.Predictor) -> None:
    """More images than one batch."""
    images = [picture((40 + 3 * number, 90), (5, 10, 25, 50 + number))[0] for number in range(7)]
    predicted = predictor(images)
    assert isinstance(predicted, list) and len(predicted) == 7
    for image, mask in zip(images, predicted, strict=True):
        assert mask.shape == image.shape[1:] and np.array_equal(mask, predictor(image))
    assert predictor(tuple(images[:2]))[1].shape == predicted[1].shape
    assert predictor([]) == []


def test_bundle_gives_the_same_mask(dataset: Dataset, tmp_path: Path) -> None:
    image, _ = picture(low=100, high=125)
    networks = prediction.Predictor.load(dataset, "bright", device="cpu")
    export_bundle(networks, [dataset.fold("bright", fold) for fold in (0, 1)], tmp_path / "tiny.zip")
    loaded = api.Predictor.load(dataset.results, "bright", device="cpu")
    for path in (tmp_path / "tiny.zip", str(tmp_path / "tiny.zip")):
        assert np.array_equal(api.Predictor.load(path, device="cpu")(image), loaded(image))
    with pytest.raises(api.AutosegError, match="is a bundle"):
        api.Predictor.load(tmp_path / "tiny.zip", "bright")
    with pytest.raises(api.AutosegError, match="does not exist"):
        api.Predictor.load(tmp_path / "nothing.zip")


def test_missing_model_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(api.AutosegError, match=r"no model of Tiny given; trained: bright"):
        api.Predictor.load("Tiny", root=dataset.root)
    with pytest.raises(api.AutosegError, match="unet has no trained fold"):
        api.Predictor.load("Tiny", "unet", root=dataset.root)


def test_repr_is_one_line(predictor: api.Predictor) -> None:
    assert repr(predictor) == "Predictor(bright fold 0; 3 channels; background, bright; cpu)"


IMAGE = picture()[0]
WITH_NAN = IMAGE.astype(np.float32)
WITH_NAN[0, 3, 4:6] = np.nan


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("photos/one.png", r"the image is a path, not an array: 'photos/one.png'\n.*autoseg.io.read_image"),
        (Path("photos/one.png"), "the image is a path, not an array"),
        (np.zeros((0, 30, 3), np.uint8), r"the image is empty: its shape is \(0, 30, 3\)"),
        (np.zeros((2, 20, 30, 3), np.uint8), r"has 4 axes: its shape is \(2, 20, 30, 3\)\n.*list\(batch\)"),
        (np.zeros(30, np.uint8), r"has 1 axes: its shape is \(30,\)"),
        (np.zeros((20, 30, 5), np.uint8), "not clearly an image of 3 channels"),
        (np.zeros((20, 30), bool), "has type bool, which is no image type"),
        (np.zeros((20, 30), complex), "has type complex128, which is no image type"),
        (np.array([["a"]]), "which is no image type"),
        (None, "has type object, which is no image type"),
        (WITH_NAN, "2 values of the image are not-a-number or infinite"),
        (IMAGE.astype(np.float32) / 255, "the image has values 0..1"),
    ],
)
def test_invalid_images_are_refused_with_a_reason(predictor: api.Predictor, value: object, message: str) -> None:
    for method in (predictor, predictor.probabilities, predictor.assess):
        with pytest.raises(api.AutosegError, match=message):
            method(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([IMAGE, "two.png"], r"images\[1\] is a path"),
        ([IMAGE, IMAGE[..., :0]], r"images\[1\] is empty"),
        ([IMAGE, np.zeros((20, 30, 5), np.uint8)], r"images\[1\]: an array of shape \(20, 30, 5\)"),
        ([[1, 2], [3, 4]], r"images\[0\] is a list, not an array"),
    ],
)
def test_invalid_image_of_a_list_is_named(predictor: api.Predictor, value: list[object], message: str) -> None:
    with pytest.raises(api.AutosegError, match=message):
        predictor(value)


def test_masks_equal_the_files_of_predict(dataset: Dataset, tmp_path: Path) -> None:
    from autoseg.io import read_label

    image, _ = picture()
    write_image(tmp_path / "in.png", image)
    report = api.predict(tmp_path / "in.png", tmp_path / "out", "Tiny", "bright", device="cpu", root=dataset.root)
    assert not report.failed
    mask = api.Predictor.load("Tiny", "bright", device="cpu", root=dataset.root)(image)
    assert np.array_equal(read_label(tmp_path / "out" / "in.png").array, mask)
