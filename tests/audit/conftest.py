"""A small dataset whose masks hold one fault of each kind, and what two readers, who know better, said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.files import write_artefact
from autoseg.support.workspace import Workspace

SIZE = (120, 160)
FAULTS = {"c00": "empty_mask", "c01": "extra_object", "c02": "wrong_class", "c03": "shifted", "c04": "missed_object"}


@dataclass(frozen=True)
class Faulty:
    root: Path
    truth: dict[str, np.ndarray]


def true_mask(index: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    cv2.circle(mask, (40 + 2 * index, 60), 18 + index % 3, 1, -1)
    cv2.circle(mask, (110, 55 + index), 15, 2, -1)
    return mask


def spoilt(case: str, mask: np.ndarray) -> np.ndarray:
    kind = FAULTS.get(case)
    bad = mask.copy()
    if kind == "empty_mask":
        bad[:] = 0
    elif kind == "extra_object":
        cv2.circle(bad, (75, 100), 12, 1, -1)
    elif kind == "wrong_class":
        bad[mask == 1] = 2
    elif kind == "shifted":
        move = np.array([[1, 0, 0], [0, 1, 15]], np.float32)
        bad = cv2.warpAffine(mask, move, SIZE[::-1], flags=cv2.INTER_NEAREST)
    elif kind == "missed_object":
        bad[mask == 2] = 0
    return bad


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """The readers' masks lie where held-out predictions do; they waver by a pixel here and there."""
    folder = tmp_path_factory.mktemp("faulty")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    truth = {}
    for index in range(16):
        case = f"c{index:02d}"
        mask = truth[case] = true_mask(index)
        rng = np.random.default_rng(index)
        image = np.array([60, 160, 230], np.float32)[mask][..., None] + rng.normal(0, 9, (*SIZE, 3))
        cv2.imwrite(str(folder / "images" / f"{case}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{case}.png"), spoilt(case, mask))
    root = folder / "root"
    api.convert_folders(folder / "images", folder / "masks", "Faulty", labels=["background", "disc", "ring"], root=root)
    results = Workspace.at(root).dataset("Faulty").results
    for number, reader in enumerate(("one", "two")):
        held_out = results / reader / "fold_0" / "validation"
        held_out.mkdir(parents=True)
        for case, mask in truth.items():
            cv2.imwrite(str(held_out / f"{case}.png"), np.roll(mask, number, axis=1))
        record = PredictionRecord(
            dataset="Dataset501_Faulty",
            models=(reader,),
            folds=(0,),
            identities={},
            labels={"background": 0},
            mirror=(),
            device="cpu",
            precision="",
            seconds=0.0,
            cases=(),
        )
        write_artefact(held_out / "prediction.json", record)
    return Faulty(root, truth)
