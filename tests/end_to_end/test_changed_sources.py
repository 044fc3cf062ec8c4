"""What was derived from files is not used after the files changed: planned, trained and scored data, one change each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from autoseg import api
from autoseg.io import write_image, write_label
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.workspace import Dataset, Workspace

MODEL = "unet"
CASES = 10
SETTINGS = {
    "training.epochs": 1,
    "training.folds": 2,
    f"models.{MODEL}.variant": "16",
    f"models.{MODEL}.input_size": "32x32",
    f"models.{MODEL}.batch_size": 2,
}


def case(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A random gray image (1, 48, 48) and a mask (48, 48) of two discs."""
    rng = np.random.default_rng(index)
    mask = np.zeros((48, 48), np.uint8)
    for value, column in ((1, 14), (2, 34)):
        cv2.circle(mask, (column + int(rng.integers(-4, 5)), int(rng.integers(14, 34))), int(rng.integers(5, 9)), value, -1)
    image = np.array([40, 130, 220], np.float32)[mask] + rng.normal(0, 12, mask.shape)
    return image.clip(0, 255).astype(np.uint8)[None], mask


def write_raw(dataset: Dataset, ending: str = ".png") -> None:
    for index in range(CASES):
        image, mask = case(index)
        write_image(dataset.raw / "imagesTr" / f"c{index}_0000{ending}", image)
        write_label(dataset.raw / "labelsTr" / f"c{index}{ending}", mask)
    spec = DatasetSpec(
        channel_names={"0": "gray"}, labels={"background": 0, "disc": 1, "ring": 2}, numTraining=CASES, file_ending=ending
    )
    write_description(dataset.description, spec)


def plan(root: Path, **options: object) -> None:
    api.plan_and_preprocess(501, protocol="quick", models=MODEL, settings=SETTINGS, root=root, **options)


def test_the_masks_that_dataset_json_lists_are_trained_and_scored(tmp_path: Path) -> None:
    """nnU-Net's entry "dataset": here it names other masks than labelsTr holds, and then labelsTr is gone."""
    dataset = Workspace.at(tmp_path).new_dataset(501, "Listed")
    write_raw(dataset)
    entries = {}
    for index in range(CASES):
        name = f"c{index}"
        shutil.copy(dataset.raw / "labelsTr" / f"{name}.png", dataset.raw / f"second_{name}.png")
        write_label(dataset.raw / "labelsTr" / f"{name}.png", np.zeros((48, 48), np.uint8))
        entries[name] = {"images": [f"imagesTr/{name}_0000.png"], "label": f"second_{name}.png"}
    content = json.loads(dataset.description.read_text())
    dataset.description.write_text(json.dumps({**content, "dataset": entries}))
    plan(tmp_path)
    (trained,) = api.train(501, MODEL, 0, root=tmp_path)
    listed = {score.case: sum(one.tp + one.fn for one in score.classes.values()) for score in trained.scores.cases}
    assert listed == {name: int((case(int(name[1:]))[1] > 0).sum()) for name in listed}, "scored against labelsTr"
    shutil.rmtree(dataset.raw / "labelsTr")
    (again,) = api.train(501, MODEL, 1, root=tmp_path)
    assert again.scores.cases
