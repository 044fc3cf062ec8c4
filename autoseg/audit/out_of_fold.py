"""What models that never saw a case say of it: their probabilities, averaged, beside the reference."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.inference import resample_to_original
from autoseg.io import Case, is_image, read_case, read_label, stem_of
from autoseg.metrics.rules import is_defined
from autoseg.prediction.predictor import Predictor, trained_folds
from autoseg.prediction.validation import FOLDER
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Splits
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.log import progress_bar
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)

Maps = NDArray[np.float32]
# Opinions are compared at this size: contradictions worth a person's time are not smaller.
SIDE = 256
_ENOUGH = 0.8


@dataclass(frozen=True, eq=False)
class OutOfFoldPredictions:
    """maps: (K, h, w) mean probability of each output. reference: (h, w) label values. size: (H, W) of the mask itself."""

    case: str
    maps: Maps
    reference: NDArray[Any]
    size: tuple[int, int]


def out_of_fold_predictions(
    dataset: Dataset, cases: Mapping[str, Case], scheme: LabelScheme, models: Mapping[str, Path], device: str
) -> list[OutOfFoldPredictions]:
    """Of every case that some model held out. models: name -> folder of its folds (see `audited_models`).

    A fold that has its weights is asked again, for probabilities; one that has masks only counts as sure of each pixel.
    """
    sums: dict[str, Maps] = {}
    counts: dict[str, int] = {}
    for name, folder in models.items():
        for case, maps in progress_bar(_of_model(dataset, name, folder, cases, scheme, device), f"asking {name}"):
            sums[case] = sums[case] + maps if case in sums else maps
            counts[case] = counts.get(case, 0) + 1
    found = []
    for case in sorted(sums):
        path = cases[case].label
        assert path is not None
        labels = read_label(path).array
        size = (labels.shape[0], labels.shape[1])
        height, width = sums[case].shape[1:]
        small = cv2.resize(labels.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)
        found.append(OutOfFoldPredictions(case, (sums[case] / counts[case]).astype(np.float32), small, size))
    return found


def audited_models(dataset: Dataset) -> dict[str, Path]:
    """Every model that holds held-out predictions. Raises AutosegError where there is none."""
    folders = sorted(dataset.results.iterdir()) if dataset.results.is_dir() else []
    found = {path.name: path for path in folders if any(path.glob(f"fold_*/{FOLDER}/prediction.json"))}
    if not found:
        remedy = f"autoseg_train {dataset.number} MODEL all"
        raise AutosegError(f"{dataset.name} has no trained models to hold against it", remedy)
    return found


def good_enough(models: Mapping[str, Path]) -> dict[str, Path]:
    """Without the models whose held-out Dice is less than 80 % of the best one's: what a poor model contradicts is no
    evidence, and in the mean it drowns those that know better. Readers without scores stay."""
    dice = {name: _dice(folder) for name, folder in models.items()}
    least = _ENOUGH * max((value for value in dice.values() if is_defined(value)), default=0.0)
    left_out = [name for name, value in dice.items() if is_defined(value) and value < least]
    if left_out:
        names = ", ".join(left_out)
        logger.info(f"not asked, since held-out Dice is below {least:.2f}: {names} (--models asks them all the same)")
    return {name: folder for name, folder in models.items() if name not in left_out}


def _dice(folder: Path) -> float:
    scores = [read_artefact(path, Scores) for path in folder.glob(f"fold_*/{FOLDER}/scores.json")]
    found = [one.overall.get("pooled.dice", math.nan) for one in scores]
    return sum(found) / len(found) if found else math.nan


def _of_model(
    dataset: Dataset, name: str, folder: Path, cases: Mapping[str, Case], scheme: LabelScheme, device: str
) -> Iterator[tuple[str, Maps]]:
    weights = trained_folds(folder)
    for place in sorted(folder.glob("fold_*")):
        masks = place / FOLDER
        number = int(place.name.removeprefix("fold_")) if place.name.removeprefix("fold_").isdigit() else -1
        if number in weights and (place / "splits.json").is_file():
            predictor = Predictor.load(dataset, name, [number], device=device)
            splits = read_artefact(place / "splits.json", Splits)
            for case in splits.folds[number].validation:
                if case in cases and cases[case].label is not None:
                    yield case, _asked(predictor, cases[case])
        elif masks.is_dir():
            for path in sorted(masks.iterdir()):
                if is_image(path) and stem_of(path) in cases:
                    yield stem_of(path), _voted(read_label(path).array, scheme)


def _asked(predictor: Predictor, case: Case) -> Maps:
    image = read_case(case.images)
    prepared = predictor.prepare(image.array, image.spacing)
    return resample_to_original.resize(predictor.average([prepared])[0], small_size(prepared.size)).astype(np.float32)


def _voted(labels: NDArray[Any], scheme: LabelScheme) -> Maps:
    height, width = small_size((labels.shape[0], labels.shape[1]))
    small = cv2.resize(labels.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.stack([np.isin(small, member) for member in scheme.members]).astype(np.float32)


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) with a longer side of at most SIDE."""
    factor = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def predicted(predictions: OutOfFoldPredictions, scheme: LabelScheme) -> dict[str, NDArray[np.bool_]]:
    """Class -> mask (h, w) of what the models say."""
    if scheme.regions:
        return {name: predictions.maps[place] > 0.5 for place, name in enumerate(scheme.names)}
    best = predictions.maps.argmax(0)
    return {name: best == place for place, name in enumerate(scheme.names) if place}


