from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import RawDataset
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.preprocessing.preprocess import preprocess_dataset
from autoseg.preprocessing.transform import prepare_label, preprocess_image
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from tests.generated import draw

WHOLE = PreprocessingConfig(key="resize_32x48", geometry="resize", dtype="uint8", channels=3, size=(32, 48))
NATIVE = PreprocessingConfig(key="patch_native", geometry="patch", dtype="uint8", channels=3)
CASES = 7


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    found = Dataset(tmp_path, "Dataset501_Made")
    for folder in ("imagesTr", "labelsTr"):
        (found.raw / folder).mkdir(parents=True)
    for index in range(CASES):
        image, label = draw("polyps", index)
        cv2.imwrite(str(found.raw / "imagesTr" / f"c{index}_0000.png"), image[..., ::-1])
        cv2.imwrite(str(found.raw / "labelsTr" / f"c{index}.png"), label)
    described = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": CASES,
        "file_ending": ".png",
    }
    found.description.write_text(json.dumps(described))
    return found


def build(
    dataset: Dataset, preparation: PreprocessingConfig = WHOLE, content: str = "abc", workers: int | None = None
) -> ArrayDataset:
    return preprocess_dataset(dataset, RawDataset.open(dataset), preparation, workers, content)


@pytest.mark.parametrize("preparation", [WHOLE, NATIVE])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_store_holds_every_case_prepared(dataset: Dataset, preparation: PreprocessingConfig, workers: int) -> None:
    store = build(dataset, preparation, workers=workers)
    assert store.folder == dataset.store(preparation.key)
    assert store.cases == tuple(f"c{index}" for index in range(CASES))
    for index, name in enumerate(store.cases):
        image, label = draw("polyps", index)
        np.testing.assert_array_equal(store.image(name), preprocess_image(image.transpose(2, 0, 1), preparation))
        np.testing.assert_array_equal(store.label(name), prepare_label(label, preparation))
        assert store.shape_before(name) == label.shape
        assert set(store.foreground(name)) == set(np.unique(store.label(name))) - {0}


def test_a_store_is_made_once_and_anew_when_the_data_or_the_plan_changed(dataset: Dataset) -> None:
    def made() -> tuple[int, int]:
        status = os.stat(dataset.store(WHOLE.key) / "images.npy")
        return status.st_ino, status.st_mtime_ns

    build(dataset)
    first = made()
    build(dataset)
    assert made() == first
    build(dataset, content="changed")
    second = made()
    assert second != first
    other = PreprocessingConfig(key=WHOLE.key, geometry="resize", dtype="uint8", channels=3, size=(16, 16))
    assert build(dataset, other).image("c0").shape == (16, 16, 3)
    (dataset.store(WHOLE.key) / "labels.npy").write_bytes(b"broken")
    assert build(dataset, other).label("c0").shape == (16, 16)


def test_a_case_that_cannot_be_read_is_named_and_leaves_nothing(dataset: Dataset) -> None:
    (dataset.raw / "imagesTr" / "c3_0000.png").write_bytes(b"no picture")
    with pytest.raises(AutosegError, match="case c3"):
        build(dataset)
    assert list(dataset.preprocessed.iterdir()) == []


def test_image_and_label_must_be_of_one_size(dataset: Dataset) -> None:
    cv2.imwrite(str(dataset.raw / "labelsTr" / "c5.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(AutosegError, match=r"case c5: the image is \d+x\d+, its label map 9x9"):
        build(dataset)


def test_without_a_fingerprint_it_says_what_to_run(dataset: Dataset) -> None:
    with pytest.raises(AutosegError, match="autoseg_plan_and_preprocess"):
        preprocess_dataset(dataset, RawDataset.open(dataset), WHOLE)
