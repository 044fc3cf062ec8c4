"""Out-of-fold predictions: mean probabilities of the models that were not trained on a case, with its reference."""

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
from autoseg.io import Case, is_image, read_case, read_label_of, stem_of
from autoseg.metrics.rules import is_defined
from autoseg.prediction.predictor import Predictor, trained_folds
from autoseg.prediction.validation import FOLDER
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.log import progress_bar
from autoseg.support.workspace import Dataset, fold_folders, model_of_folder, seed_of_folder
from autoseg.training.checkpoint import read_split

logger = logging.getLogger(__name__)

Maps = NDArray[np.float32]
# Longer side of the compared maps. Smaller label errors are not worth a review.
MAX_SIDE = 256
_MIN_RELATIVE_DICE = 0.8


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
    """Predictions of every case that any model held out. models: name -> folder of its folds (see `find_models`).

    A fold with weights predicts probabilities again. A fold with masks only has probabilities of 0 and 1.
    """
    sums: dict[str, Maps] = {}
    counts: dict[str, int] = {}
    for name, folder in models.items():
        for case, maps in progress_bar(
            _model_predictions(dataset, name, folder, cases, scheme, device), f"predicting with {name}"
        ):
            sums[case] = sums[case] + maps if case in sums else maps
            counts[case] = counts.get(case, 0) + 1
    predictions = []
    for case in sorted(sums):
        path = cases[case].label
        assert path is not None
        labels = read_label_of(path, cases[case].images).array
        size = (labels.shape[0], labels.shape[1])
        height, width = sums[case].shape[1:]
        small = cv2.resize(labels.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)
        predictions.append(OutOfFoldPredictions(case, (sums[case] / counts[case]).astype(np.float32), small, size))
    return predictions


def find_models(dataset: Dataset) -> dict[str, Path]:
    """Name -> folder of every model with held-out predictions. Raises AutosegError if there is none."""
    folders = sorted(dataset.results.iterdir()) if dataset.results.is_dir() else []
    # One training of each model and fold: further seeds would count a model several times.
    folders = [path for path in folders if seed_of_folder(path.name) is None]
    models = {model_of_folder(path.name): path for path in folders if _has_predictions(path)}
    if not models:
        remedy = f"autoseg_train {dataset.number} MODEL all"
        raise AutosegError(f"{dataset.name} has no trained models to compare its references with", remedy)
    return models


def select_models(models: Mapping[str, Path]) -> dict[str, Path]:
    """Without the models whose held-out Dice is less than 80 % of the best one's: they are no evidence and distort the mean.
    Models without scores stay."""
    dice = {name: _dice(folder) for name, folder in models.items()}
    least = _MIN_RELATIVE_DICE * max((value for value in dice.values() if is_defined(value)), default=0.0)
    left_out = [name for name, value in dice.items() if is_defined(value) and value < least]
    if left_out:
        names = ", ".join(left_out)
        logger.info(f"not used, because their held-out Dice is below {least:.2f}: {names} (--models selects them anyway)")
    return {name: folder for name, folder in models.items() if name not in left_out}


def _has_predictions(folder: Path) -> bool:
    return any((fold / FOLDER / "prediction.json").is_file() for fold in fold_folders(folder).values())


def _dice(folder: Path) -> float:
    files = [fold / FOLDER / "scores.json" for fold in fold_folders(folder).values()]
    scores = [read_artefact(path, Scores) for path in files if path.is_file()]
    dice = [one.overall.get("class_mean.dice", math.nan) for one in scores]
    return sum(dice) / len(dice) if dice else math.nan


def _model_predictions(
    dataset: Dataset, name: str, folder: Path, cases: Mapping[str, Case], scheme: LabelScheme, device: str
) -> Iterator[tuple[str, Maps]]:
    weights = trained_folds(folder)
    for number, fold_folder in fold_folders(folder).items():
        masks = fold_folder / FOLDER
        if number in weights and (fold_folder / "splits.json").is_file():
            predictor = Predictor.load(dataset, name, [number], device=device)
            for case in read_split(fold_folder, number).validation:
                if case in cases and cases[case].label is not None:
                    yield case, _predict_maps(predictor, cases[case])
        elif masks.is_dir():
            for path in sorted(masks.iterdir()):
                if is_image(path) and stem_of(path) in cases:
                    yield stem_of(path), _one_hot_maps(read_label_of(path, cases[stem_of(path)].images).array, scheme)


def _predict_maps(predictor: Predictor, case: Case) -> Maps:
    image = read_case(case.images)
    prepared = predictor.prepare(image.array, image.spacing)
    return resample_to_original.resize(predictor.average([prepared])[0], small_size(prepared.size)).astype(np.float32)


def _one_hot_maps(labels: NDArray[Any], scheme: LabelScheme) -> Maps:
    height, width = small_size((labels.shape[0], labels.shape[1]))
    small = cv2.resize(labels.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.stack([np.isin(small, member) for member in scheme.members]).astype(np.float32)


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) with a longer side of at most MAX_SIDE."""
    factor = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def predicted_masks(predictions: OutOfFoldPredictions, scheme: LabelScheme) -> dict[str, NDArray[np.bool_]]:
    """Class -> predicted mask (h, w)."""
    if scheme.regions:
        return {name: predictions.maps[index] > 0.5 for index, name in enumerate(scheme.names)}
    best = predictions.maps.argmax(0)
    return {name: best == index for index, name in enumerate(scheme.names) if index}
