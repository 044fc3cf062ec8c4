"""Out-of-fold predictions of several models, and the Dice of their ensembles with each post-processing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.inference import resample_to_original
from autoseg.io import Case, RawDataset, read_case, read_label_of
from autoseg.metrics.overlap import counts
from autoseg.prediction.postprocess import clean
from autoseg.prediction.predictor import EnsembleAccumulator, Inferred, Predictor
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Splits
from autoseg.schema.prediction import PostProcessing
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Dataset

_MIN_OBJECT_FRACTIONS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01)
# The first does nothing.
OPTIONS = (
    *(PostProcessing(fraction, False, fill) for fraction in (0.0, *_MIN_OBJECT_FRACTIONS) for fill in (False, True)),
    *(PostProcessing(0.0, True, fill) for fill in (False, True)),
)
_MAX_NAMED = 3


@dataclass(frozen=True)
class HeldOutCase:
    """An out-of-fold case. predictions: model -> prediction by the fold that was not trained on the case."""

    name: str
    fold: int
    reference: NDArray[Any]
    predictions: Mapping[str, Inferred]

    def average(self, models: Sequence[str], scheme: LabelScheme) -> Inferred:
        """The mean prediction of several models, computed as the predictor does."""
        ensemble = EnsembleAccumulator(scheme, len(models))
        for model in models:
            ensemble.add(self.predictions[model].maps)
        return ensemble.finish()

    def label_map(self, inferred: Inferred, scheme: LabelScheme) -> NDArray[Any]:
        """Labels (H, W) at the size of the reference."""
        return resample_to_original.label_map(inferred.maps, scheme, (self.reference.shape[0], self.reference.shape[1]))


def held_out_cases(
    dataset: Dataset, raw: RawDataset, splits: Splits, folds: Sequence[int], models: Sequence[str], device: str
) -> Iterator[HeldOutCase]:
    """Every case of the folds, predicted by the networks that were not trained on it."""
    cases = {case.name: case for case in raw.cases}
    total = sum(len(splits.folds[fold].validation) for fold in folds)

    def predict_cases() -> Iterator[HeldOutCase]:
        for fold in folds:
            predictors = {model: Predictor.load(dataset, model, [fold], device=device) for model in models}
            names = [name for name in splits.folds[fold].validation if name in cases]
            read = parallel_map(lambda name: _read_image_and_label(cases[name]), names, 2)
            for name, (image, reference) in zip(names, read, strict=True):
                predictions = {
                    model: predictor.infer([predictor.prepare(image.array, image.spacing)])[0]
                    for model, predictor in predictors.items()
                }
                yield HeldOutCase(name, fold, reference, predictions)

    return progress_bar(predict_cases(), " + ".join(models) if len(models) <= _MAX_NAMED else f"{len(models)} models", total)


def _read_image_and_label(case: Case) -> tuple[Any, NDArray[Any]]:
    if case.label is None:
        raise AutosegError(f"{case.name} has no label map", "add one to labelsTr")
    image = read_case(case.images)
    return image, read_label_of(case.label, case.images, image).array


def mean_dice(labels: NDArray[Any], reference: NDArray[Any], scheme: LabelScheme) -> float:
    """Mean Dice of two label maps (H, W) over the classes in either; 1 if both are empty."""
    ignored = None if scheme.ignore is None else reference == scheme.ignore
    class_counts = counts(labels, reference, scheme.foreground, ignored).values()
    dices = [count.dice for count in class_counts if not math.isnan(count.dice)]
    return float(np.mean(dices)) if dices else 1.0


def dice_per_option(labels: NDArray[Any], reference: NDArray[Any], scheme: LabelScheme) -> NDArray[np.float64]:
    """Dice (classes, options) of two label maps (H, W) after each of `OPTIONS`; not-a-number for a class in neither."""
    return np.array([_dice_of_class(labels, reference, member, scheme.ignore) for member in scheme.foreground.values()])


def _dice_of_class(labels: NDArray[Any], reference: NDArray[Any], member: tuple[int, ...], ignore: int | None) -> list[float]:
    mask, true = np.isin(labels, member), np.isin(reference, member)
    counted = np.ones_like(true) if ignore is None else reference != ignore
    # Filled pixels were background, as in `postprocess.apply`.
    free = (labels == 0) | mask
    dices = []
    for option in OPTIONS:
        cleaned = clean(mask, option) & free & counted
        total = int(cleaned.sum()) + int((true & counted).sum())
        dices.append(2 * int((cleaned & true).sum()) / total if total else math.nan)
    return dices
