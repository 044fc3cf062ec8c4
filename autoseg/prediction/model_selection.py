"""Choose the best model, pair or triple of a dataset and its post-processing, on out-of-fold predictions only."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.inference import resample_to_original
from autoseg.io import Case, RawDataset, read_case, read_label_of
from autoseg.metrics.overlap import counts
from autoseg.prediction.calibration import fit
from autoseg.prediction.confidence import assess, predicted_classes
from autoseg.prediction.postprocess import clean
from autoseg.prediction.predictor import EnsembleAccumulator, Inferred, Predictor, model_folder, trained_folds
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Splits
from autoseg.schema.prediction import BestChoice, Calibration, Candidate, PostProcessing
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Dataset
from autoseg.training.checkpoint import read_split

logger = logging.getLogger(__name__)

FILE = "best.json"
_MAX_GROUP = 3
# Groups are formed from this many models, the best by validation Dice: 41 candidates.
_MAX_MODELS = 6
# Smaller gains in Dice are chance: no post-processing then.
_MIN_GAIN = 0.001
_MIN_OBJECT_FRACTIONS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01)
ModelNames = tuple[str, ...]


@dataclass(frozen=True)
class _HeldOutCase:
    """An out-of-fold case. predictions: model -> prediction by the fold that was not trained on the case."""

    reference: NDArray[Any]
    predictions: Mapping[str, Inferred]


def find_best(dataset: Dataset, models: Sequence[str] | None = None, device: str = "auto") -> BestChoice:
    """Choose among `models` (None: all trained ones) on their common folds; write best.json into the results folder.

    Dice is the mean over classes and cases. Classes in neither mask are left out; a case without any class counts as 1.
    Raises AutosegError if no model is trained or the models have no common fold.
    """
    folders = _find_trained(dataset, models)
    splits, folds = _common_folds(dataset, folders)
    raw = RawDataset.open(dataset)
    candidates = _top_models(folders, folds)
    groups = [group for count in range(1, _MAX_GROUP + 1) for group in combinations(candidates, count)]
    dice: dict[ModelNames, list[float]] = {group: [] for group in groups}
    for held in _held_out(dataset, raw, splits, folds, candidates, device):
        for group in groups:
            labels = _label_map(held, _average(held, group, raw.scheme), raw.scheme)
            dice[group].append(_dice(labels, held.reference, raw.scheme))
    means = {group: float(np.mean(values)) for group, values in dice.items()}
    # Ties go to the smaller group: it costs less.
    best = min(groups, key=lambda group: (-round(means[group], 4), len(group)))
    postprocessing, dice_after, calibration = _choose_postprocessing(
        raw.scheme, _held_out(dataset, raw, splits, folds, best, device), best
    )
    choice = BestChoice(
        dataset=dataset.name,
        models=best,
        folds=folds,
        dice=round(dice_after, 5),
        dice_before=round(means[best], 5),
        cases=len(dice[best]),
        candidates=tuple(Candidate(group, round(means[group], 5)) for group in sorted(groups, key=lambda group: -means[group])),
        postprocessing=postprocessing,
        identities=identities(dataset, best, folds),
        command=f"autoseg_predict -i IMAGES -o MASKS -d {dataset.number} -m best",
        calibration=calibration,
    )
    write_artefact(dataset.results / FILE, choice)
    return choice


def identities(dataset: Dataset, models: Sequence[str], folds: Sequence[int]) -> dict[str, str]:
    """Member -> identity of its run, as in prediction.json."""
    return {
        f"{model}/fold_{fold}": read_artefact(dataset.fold(model, fold) / "run.json", RunRecord).identity
        for model in models
        for fold in folds
    }


def read_best(dataset: Dataset) -> BestChoice:
    """Read best.json. Raises AutosegError if it is missing, or if a model was trained again since."""
    remedy = f"autoseg_find_best {dataset.number}"
    choice = read_artefact(dataset.results / FILE, BestChoice, remedy)
    if identities(dataset, choice.models, choice.folds) != choice.identities:
        raise AutosegError(f"{dataset.results / FILE} is out of date: a model was trained again", remedy)
    return choice


def _find_trained(dataset: Dataset, models: Sequence[str] | None) -> dict[str, dict[int, Path]]:
    names = list(models) if models else sorted(path.name for path in dataset.results.glob("*") if path.is_dir())
    folders = {model: trained_folds(model_folder(dataset, model, None)) for model in names}
    missing = [model for model in names if not folders[model]]
    if models and missing:
        command = f"autoseg_train {dataset.number} {missing[0]} all"
        raise AutosegError(f"{missing[0]} has no trained fold for {dataset.name}", command)
    folders = {model: folds for model, folds in folders.items() if folds}
    if not folders:
        raise AutosegError(f"no model is trained for {dataset.name}", f"autoseg_train {dataset.number} MODEL all")
    return folders


def _common_folds(dataset: Dataset, folders: dict[str, dict[int, Path]]) -> tuple[Splits, tuple[int, ...]]:
    """The splits and the folds all models have. Raises AutosegError if the models are not comparable."""
    folds = tuple(sorted(set.intersection(*(set(trained) for trained in folders.values()))))
    if not folds:
        listed = "; ".join(f"{model}: {', '.join(map(str, sorted(trained)))}" for model, trained in folders.items())
        raise AutosegError(f"the models have no common trained fold ({listed})", "train the same folds, or name fewer models")
    fold_splits = {
        (model, fold): read_split(trained[fold], fold)
        for model, trained in folders.items()
        for fold in folds
    }
    first = next(iter(folders))
    other = [model for (model, fold), split in fold_splits.items() if split != fold_splits[first, fold]]
    if other:
        problem = f"{other[0]} and {first} were trained on different splits"
        raise AutosegError(problem, "train one of them again, or name fewer models")
    for model, trained in folders.items():
        extra = sorted(set(trained) - set(folds))
        if extra:
            logger.info(f"{model}: fold {', '.join(map(str, extra))} is not used: other models lack it")
    return read_artefact(folders[first][folds[0]] / "splits.json", Splits), folds


def _top_models(folders: dict[str, dict[int, Path]], folds: Sequence[int]) -> list[str]:
    def validation_dice(model: str) -> float:
        return sum(read_artefact(folders[model][fold] / "run.json", RunRecord).best_dice for fold in folds)

    ranked = sorted(folders, key=lambda model: (-validation_dice(model), model))
    if len(ranked) > _MAX_MODELS:
        logger.info(f"combining the {_MAX_MODELS} best of {len(ranked)} models by validation Dice")
    return ranked[:_MAX_MODELS]


def _held_out(
    dataset: Dataset, raw: RawDataset, splits: Splits, folds: Sequence[int], models: Sequence[str], device: str
) -> Iterator[_HeldOutCase]:
    """Every case of the folds, predicted by the networks that were not trained on it."""
    cases = {case.name: case for case in raw.cases}
    total = sum(len(splits.folds[fold].validation) for fold in folds)

    def predict_cases() -> Iterator[_HeldOutCase]:
        for fold in folds:
            predictors = {model: Predictor.load(dataset, model, [fold], device=device) for model in models}
            names = [name for name in splits.folds[fold].validation if name in cases]
            for image, reference in parallel_map(lambda name: _read_image_and_label(cases[name]), names, 2):
                predictions = {
                    model: predictor.infer([predictor.prepare(image.array, image.spacing)])[0]
                    for model, predictor in predictors.items()
                }
                yield _HeldOutCase(reference, predictions)

    return progress_bar(predict_cases(), " + ".join(models) if len(models) <= _MAX_GROUP else f"{len(models)} models", total)


def _read_image_and_label(case: Case) -> tuple[Any, NDArray[Any]]:
    if case.label is None:
        raise AutosegError(f"{case.name} has no label map", "add one to labelsTr")
    image = read_case(case.images)
    return image, read_label_of(case.label, case.images, image).array


def _average(held: _HeldOutCase, models: ModelNames, scheme: LabelScheme) -> Inferred:
    """The mean prediction of several models, computed as the predictor does."""
    ensemble = EnsembleAccumulator(scheme, len(models))
    for model in models:
        ensemble.add(held.predictions[model].maps)
    return ensemble.finish()


def _label_map(held: _HeldOutCase, inferred: Inferred, scheme: LabelScheme) -> NDArray[Any]:
    return resample_to_original.label_map(inferred.maps, scheme, (held.reference.shape[0], held.reference.shape[1]))


def _dice(labels: NDArray[Any], reference: NDArray[Any], scheme: LabelScheme) -> float:
    ignored = None if scheme.ignore is None else reference == scheme.ignore
    class_counts = counts(labels, reference, scheme.foreground, ignored).values()
    dices = [count.dice for count in class_counts if not math.isnan(count.dice)]
    return float(np.mean(dices)) if dices else 1.0


def _choose_postprocessing(
    scheme: LabelScheme, held_out: Iterator[_HeldOutCase], models: ModelNames
) -> tuple[dict[str, PostProcessing], float, Calibration | None]:
    """Post-processing of the classes that gain by it, mean Dice with it, and the calibration of the group."""
    options = _all_options()
    dice: dict[str, list[list[float]]] = {name: [] for name in scheme.foreground}
    confidence, case_dice, empty = [], [], []
    for held in held_out:
        inferred = _average(held, models, scheme)
        labels = _label_map(held, inferred, scheme)
        for name, member in scheme.foreground.items():
            dice[name].append(_dice_per_option(labels, held.reference, member, scheme.ignore, options))
        confidence.append(assess(inferred.maps, inferred.members, scheme).value)
        case_dice.append(_dice(labels, held.reference, scheme))
        empty.append(not predicted_classes(inferred.maps, scheme))
    chosen, after = {}, []
    for name, rows in dice.items():
        means = np.mean(rows, axis=0)
        best = int(means.argmax())
        if means[best] > means[0] + _MIN_GAIN:
            chosen[name] = options[best]
        after.append(float(means[best] if name in chosen else means[0]))
    return chosen, float(np.mean(after)), fit(confidence, case_dice, empty, "value")


def _all_options() -> list[PostProcessing]:
    """All options for one class; the first does nothing."""
    options = [PostProcessing(fraction, False, fill) for fraction in (0.0, *_MIN_OBJECT_FRACTIONS) for fill in (False, True)]
    return [*options, PostProcessing(0.0, True, False), PostProcessing(0.0, True, True)]


def _dice_per_option(
    labels: NDArray[Any], reference: NDArray[Any], member: tuple[int, ...], ignore: int | None, options: list[PostProcessing]
) -> list[float]:
    mask, true = np.isin(labels, member), np.isin(reference, member)
    counted = np.ones_like(true) if ignore is None else reference != ignore
    # Filled pixels were background, as in `postprocess.apply`.
    free = (labels == 0) | mask
    dices = []
    for option in options:
        cleaned = clean(mask, option) & free & counted
        total = int(cleaned.sum()) + int((true & counted).sum())
        dices.append(2 * int((cleaned & true).sum()) / total if total else 1.0)
    return dices
