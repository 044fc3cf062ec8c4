from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.io import RawDataset
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.preprocessing.preprocess import preprocess_dataset
from autoseg.preprocessing.transform import preprocess_image, preprocess_label
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from tests.generated import draw

RESIZE = PreprocessingConfig(key="resize_32x48", geometry="resize", dtype="uint8", channels=3, size=(32, 48))
PATCH = PreprocessingConfig(key="patch_native", geometry="patch", dtype="uint8", channels=3)
CASES = 7


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path, "Dataset501_Made")
    for folder in ("imagesTr", "labelsTr"):
        (dataset.raw / folder).mkdir(parents=True)
    for index in range(CASES):
        image, label = draw("polyps", index)
        cv2.imwrite(str(dataset.raw / "imagesTr" / f"c{index}_0000.png"), image[..., ::-1])
        cv2.imwrite(str(dataset.raw / "labelsTr" / f"c{index}.png"), label)
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": CASES,
        "file_ending": ".png",
    }
    dataset.description.write_text(json.dumps(description))
    return dataset


def build(
    dataset: Dataset, config: PreprocessingConfig = RESIZE, content: str = "abc", workers: int | None = None
) -> ArrayDataset:
    return preprocess_dataset(dataset, RawDataset.open(dataset), config, workers, content)


@pytest.mark.parametrize("config", [RESIZE, PATCH])
@pytest.mark.parametrize("workers", [1, 3])
def test_arrays_hold_every_preprocessed_case(dataset: Dataset, config: PreprocessingConfig, workers: int) -> None:
    store = build(dataset, config, workers=workers)
    assert store.folder == dataset.array_folder(config.key)
    assert store.cases == tuple(f"c{index}" for index in range(CASES))
    for index, name in enumerate(store.cases):
        image, label = draw("polyps", index)
        np.testing.assert_array_equal(store.image(name), preprocess_image(image.transpose(2, 0, 1), config))
        np.testing.assert_array_equal(store.label(name), preprocess_label(label, config))
        assert store.original_size(name) == label.shape
        assert set(store.foreground(name)) == set(np.unique(store.label(name))) - {0}


def test_arrays_are_reused_until_data_or_plan_change(dataset: Dataset) -> None:
    def file_state() -> tuple[int, int]:
        status = os.stat(dataset.array_folder(RESIZE.key) / "images.npy")
        return status.st_ino, status.st_mtime_ns

    build(dataset)
    first = file_state()
    build(dataset)
    assert file_state() == first
    build(dataset, content="changed")
    second = file_state()
    assert second != first
    other = PreprocessingConfig(key=RESIZE.key, geometry="resize", dtype="uint8", channels=3, size=(16, 16))
    assert build(dataset, other).image("c0").shape == (16, 16, 3)
    (dataset.array_folder(RESIZE.key) / "labels.npy").write_bytes(b"broken")
    assert build(dataset, other).label("c0").shape == (16, 16)


def test_unreadable_case_is_named_and_nothing_is_written(dataset: Dataset) -> None:
    (dataset.raw / "imagesTr" / "c3_0000.png").write_bytes(b"no picture")
    with pytest.raises(AutosegError, match="case c3"):
        build(dataset)
    assert list(dataset.preprocessed.iterdir()) == []


def test_image_and_label_must_have_the_same_size(dataset: Dataset) -> None:
    cv2.imwrite(str(dataset.raw / "labelsTr" / "c5.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(AutosegError, match=r"case c5: the image is \d+x\d+, its label map 9x9"):
        build(dataset)


def test_missing_fingerprint_names_the_command(dataset: Dataset) -> None:
    with pytest.raises(AutosegError, match="autoseg_plan_and_preprocess"):
        preprocess_dataset(dataset, RawDataset.open(dataset), RESIZE)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "foreground.npy", "index.json"])
@pytest.mark.parametrize("content", [b"", b"{}", bytes(4000)], ids=["empty", "braces", "zeros"])
def test_damaged_arrays_are_made_again_with_a_note(
    dataset: Dataset, name: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {case: build(dataset).label(case).copy() for case in build(dataset).cases}
    (dataset.array_folder(RESIZE.key) / name).write_bytes(content)
    store = build(dataset)
    assert name in caplog.text and "it is made again" in caplog.text
    for case, label in expected.items():
        np.testing.assert_array_equal(store.label(case), label)


def test_overwritten_pixels_are_made_again(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """As many bytes as before, 1 KiB of them zero."""
    path = dataset.array_folder(RESIZE.key) / "images.npy"
    build(dataset)
    content = path.read_bytes()
    path.write_bytes(content[:5000] + bytes(1024) + content[6024:])
    build(dataset)
    assert path.read_bytes() == content and "images.npy changed after it was written" in caplog.text


def test_a_mask_that_is_stored_mirrored_comes_onto_its_image(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "Dataset501_Made")
    image, label = draw("polyps", 0)
    for folder, values, mirrored in (("imagesTr", image[..., 0], False), ("labelsTr", label, True)):
        (dataset.raw / folder).mkdir(parents=True)
        stored = sitk.Flip(sitk.GetImageFromArray(np.ascontiguousarray(values)[None]), [mirrored, False, False], False)
        sitk.WriteImage(stored, str(dataset.raw / folder / ("a.nii.gz" if mirrored else "a_0000.nii.gz")))
    labels = {"background": 0, "a": 1, "b": 2}
    description = {"channel_names": {"0": "gray"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    dataset.description.write_text(json.dumps(description))
    config = PreprocessingConfig(key="patch_native", geometry="patch", dtype="uint8", channels=1)
    np.testing.assert_array_equal(build(dataset, config).label("a"), label)
