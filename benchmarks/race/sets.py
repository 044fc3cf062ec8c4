"""The sets: folders of images made smaller, as a raw dataset that all sides read, with folds that keep patients apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg import api
from autoseg.io.raw_dataset import read_description
from autoseg.planning.splits import independent_groups, make_splits
from autoseg.support.workspace import Workspace
from benchmarks.end_to_end import SPECIFICATIONS

FOLDS = 5
# Longer side of the images, so that a network converges on two cores.
SIDES = {"acdc": 128, "drive": 256, "busi": 128, "isic": 128, "neopolyp": 160, "nuclei_histology": 256}


@dataclass(frozen=True)
class RaceSet:
    """raw: the dataset's folder. file: holds folds [{train, val}], patients (case -> patient) and labels (name -> id)."""

    name: str
    raw: Path
    file: Path

    def content(self) -> dict[str, Any]:
        return json.loads(self.file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def prepare(data: Path, name: str, side: int, root: Path) -> RaceSet:
    """The set <name><side> below `root`, made unless it is there. data: has a folder <name> with images/ and masks/."""
    full, folder = f"{name}{side}", root / "sets"
    file, workspace = folder / f"{full}.json", Workspace.at(root)
    known = {dataset.short_name: dataset for dataset in workspace.datasets()}
    if not file.exists():
        small = folder / full
        shutil.rmtree(small, ignore_errors=True)
        shrink(data / name, small, side)
        number = known[full].number if full in known else None
        specification = SPECIFICATIONS.get(name, {})
        api.convert_folders(
            small / "images", small / "masks", full, number, overwrite=True, names="keep", root=root, **specification
        )
        shutil.rmtree(small)
        _write_folds(workspace, full, file)
    return RaceSet(full, workspace.dataset(full).raw, file)


def _write_folds(workspace: Workspace, name: str, file: Path) -> None:
    dataset = workspace.dataset(name)
    spec = read_description(dataset.description)
    measured = api.fingerprint(name, root=workspace.root)
    splits = make_splits(measured, spec, FOLDS, seed=0)
    content = {
        "folds": [{"train": list(fold.train), "val": list(fold.validation)} for fold in splits.folds],
        "patients": independent_groups(measured, spec.groups),
        "labels": {label: value for label, value in spec.labels.items() if value != 0},
    }
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(file)


def shrink(source: Path, target: Path, side: int) -> None:
    """images/ and masks/ as PNG whose longer side has at most `side` pixels."""
    masks = {path.stem: path for path in (source / "masks").iterdir()}
    for part in ("images", "masks"):
        (target / part).mkdir(parents=True)
    for path in sorted((source / "images").iterdir()):
        if path.stem in masks:
            image, mask = (cv2.imread(str(one), cv2.IMREAD_UNCHANGED) for one in (path, masks[path.stem]))
            assert image is not None and mask is not None, f"{path} or its mask cannot be read"
            size = smaller(image.shape[:2], side)
            cv2.imwrite(str(target / "images" / f"{path.stem}.png"), cv2.resize(image, size, interpolation=cv2.INTER_AREA))
            cv2.imwrite(str(target / "masks" / f"{path.stem}.png"), shrink_mask(mask, size))


def smaller(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(width, height) for an image of shape (height, width)."""
    factor = min(1.0, side / max(shape))
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def shrink_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Class ids (H, W): each pixel gets the class that covers most of it. size: (width, height)."""
    values = np.unique(mask)
    shares = [cv2.resize((mask == value).astype(np.float32), size, interpolation=cv2.INTER_AREA) for value in values]
    return values[np.argmax(shares, axis=0)]
