"""A small raw dataset with known contents."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from autoseg.io import write_image, write_label
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.workspace import Dataset, Workspace

LABELS = {"background": 0, "disc": 1, "line": 2}


def picture(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """(3, H, W) uint8, soft noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (*size, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2)
    return (120 + 40 * soft / soft.std()).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)


def mask(size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A disc of radius 10 and a line three pixels wide."""
    label = np.zeros(size, np.uint8)
    cv2.circle(label, (20, 25), 10, 1, -1)
    label[5:50, 44:47] = 2
    return label


def raw_dataset(root: Path, cases: int = 4, **fields: object) -> Dataset:
    dataset = Workspace(root).new_dataset(501, "Shapes")
    for index in range(cases):
        write_image(dataset.raw / "imagesTr" / f"case{index}_0000.png", picture(index))
        write_label(dataset.raw / "labelsTr" / f"case{index}.png", mask())
    describe(dataset, cases, **fields)
    return dataset


def describe(dataset: Dataset, cases: int, **fields: object) -> None:
    usual = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": LABELS, "numTraining": cases, "file_ending": ".png"}
    write_description(dataset.description, DatasetSpec(**{**usual, **fields}))
