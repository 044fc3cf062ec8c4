"""The best model, pair or triple of a dataset and what to do to its masks, chosen on out-of-fold predictions only."""

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
from autoseg.io import Case, RawDataset, read_case, read_label
from autoseg.metrics.overlap import counts
from autoseg.prediction.calibration import fit
from autoseg.prediction.confidence import assess, found_in
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

logger = logging.getLogger(__name__)

FILE = "best.json"
_MOST_TOGETHER = 3
# Pairs and triples are made of so many models, the best by their own validation: 41 candidates.
_MOST_MODELS = 6
# Less is chance; post-processing that does not help is not done.
_LEAST_GAIN = 0.001
_SPECKS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01)
Names = tuple[str, ...]


@dataclass(frozen=True)
class _Held:
    """An out-of-fold case. said: model -> what the fold that has not seen the case says of it."""

    reference: NDArray[Any]
    said: Mapping[str, Inferred]


def find_best(dataset: Dataset, models: Sequence[str] | None = None, device: str = "auto") -> BestChoice:
    """Choose among `models` (None: all that are trained on the same folds) and write best.json into the results folder.

    Dice is the mean over classes and cases; a class in neither mask counts as 1, since finding nothing was right. Raises
    AutosegError where no model is trained, or the models share no fold.
    """
    folders = _trained(dataset, models)
    splits, folds = _shared(dataset, folders)
    raw = RawDataset.open(dataset)
    known = _most_promising(folders, folds)
    groups = [group for count in range(1, _MOST_TOGETHER + 1) for group in combinations(known, count)]
    found: dict[Names, list[float]] = {group: [] for group in groups}
    for held in _held_out(dataset, raw, splits, folds, known, device):
        for group in groups:
            labels = _labels(held, _together(held, group, raw.scheme), raw.scheme)
            found[group].append(_dice(labels, held.reference, raw.scheme))
    means = {group: float(np.mean(values)) for group, values in found.items()}
    # Among equals the smaller group: it costs less.
    best = min(groups, key=lambda group: (-round(means[group], 4), len(group)))
    chosen, after, calibration = _refined(raw.scheme, _held_out(dataset, raw, splits, folds, best, device), best)
    made = BestChoice(
        dataset=dataset.name,
        models=best,
        folds=folds,
        dice=round(after, 5),
        dice_before=round(means[best], 5),
        cases=len(found[best]),
        candidates=tuple(
            Candidate(group, round(means[group], 5)) for group in sorted(groups, key=lambda group: -means[group])
        ),
        postprocessing=chosen,
        identities=identities(dataset, best, folds),
        command=f"autoseg_predict -i IMAGES -o MASKS -d {dataset.number} -m best",
        calibration=calibration,
    )
    write_artefact(dataset.results / FILE, made)
    return made


def identities(dataset: Dataset, models: Sequence[str], folds: Sequence[int]) -> dict[str, str]:
    """Member -> identity of its run, as in prediction.json."""
    return {
        f"{model}/fold_{fold}": read_artefact(dataset.fold(model, fold) / "run.json", RunRecord).identity
        for model in models
        for fold in folds
    }


def read_best(dataset: Dataset) -> BestChoice:
    """The choice that was made. Raises AutosegError where there is none, or a model has been trained anew since."""
    remedy = f"autoseg_find_best {dataset.number}"
    choice = read_artefact(dataset.results / FILE, BestChoice, remedy)
    if identities(dataset, choice.models, choice.folds) != choice.identities:
        raise AutosegError(f"{dataset.results / FILE} was made of other trainings than lie there now", remedy)
    return choice


def _trained(dataset: Dataset, models: Sequence[str] | None) -> dict[str, dict[int, Path]]:
    named = list(models) if models else sorted(path.name for path in dataset.results.glob("*") if path.is_dir())
    folders = {model: trained_folds(model_folder(dataset, model, None)) for model in named}
    missing = [model for model in named if not folders[model]]
    if models and missing:
        command = f"autoseg_train {dataset.number} {missing[0]} all"
        raise AutosegError(f"{missing[0]} has no trained fold for {dataset.name}", command)
    folders = {model: found for model, found in folders.items() if found}
    if not folders:
        raise AutosegError(f"no model is trained for {dataset.name}", f"autoseg_train {dataset.number} MODEL all")
    return folders


def _shared(dataset: Dataset, folders: dict[str, dict[int, Path]]) -> tuple[Splits, tuple[int, ...]]:
    """The splits, and the folds all models are trained on. Raises AutosegError where models are not comparable."""
    folds = tuple(sorted(set.intersection(*(set(found) for found in folders.values()))))
    if not folds:
        told = "; ".join(f"{model}: {', '.join(map(str, sorted(found)))}" for model, found in folders.items())
        raise AutosegError(f"the models share no trained fold ({told})", "train them on the same folds, or name fewer models")
    read = {
        (model, fold): read_artefact(found[fold] / "splits.json", Splits).folds[fold]
        for model, found in folders.items()
        for fold in folds
    }
    first = next(iter(folders))
    other = [model for (model, fold), split in read.items() if split != read[first, fold]]
    if other:
        problem = f"{other[0]} and {first} were trained on different splits"
        raise AutosegError(problem, "train one of them again, or name fewer models")
    for model, found in folders.items():
        left = sorted(set(found) - set(folds))
        if left:
            logger.info(f"{model}: fold {', '.join(map(str, left))} is left out, since not all models have it")
    return read_artefact(folders[first][folds[0]] / "splits.json", Splits), folds


def _most_promising(folders: dict[str, dict[int, Path]], folds: Sequence[int]) -> list[str]:
    def own(model: str) -> float:
        return sum(read_artefact(folders[model][fold] / "run.json", RunRecord).best_dice for fold in folds)

    kept = sorted(folders, key=lambda model: (-own(model), model))
    if len(kept) > _MOST_MODELS:
        logger.info(f"the {_MOST_MODELS} best of {len(kept)} models by their own validation are looked at together")
    return kept[:_MOST_MODELS]


def _held_out(
    dataset: Dataset, raw: RawDataset, splits: Splits, folds: Sequence[int], models: Sequence[str], device: str
) -> Iterator[_Held]:
    """Every case of the folds, seen by the networks that were not trained on it."""
    cases = {case.name: case for case in raw.cases}
    total = sum(len(splits.folds[fold].validation) for fold in folds)

    def each() -> Iterator[_Held]:
        for fold in folds:
            predictors = {model: Predictor.load(dataset, model, [fold], device=device) for model in models}
            names = [name for name in splits.folds[fold].validation if name in cases]
            for image, reference in parallel_map(lambda name: _read(cases[name]), names, 2):
                said = {
                    model: predictor.infer([predictor.prepare(image.array, image.spacing)])[0]
                    for model, predictor in predictors.items()
                }
                yield _Held(reference, said)

    return progress_bar(each(), " + ".join(models) if len(models) <= _MOST_TOGETHER else f"{len(models)} models", total)


def _read(case: Case) -> tuple[Any, NDArray[Any]]:
    if case.label is None:
        raise AutosegError(f"{case.name} has no label map", "put one into labelsTr")
    return read_case(case.images), read_label(case.label).array


def _together(held: _Held, models: Names, scheme: LabelScheme) -> Inferred:
    """What several models say of a case, averaged as the predictor averages them."""
    found = EnsembleAccumulator(scheme, len(models))
    for model in models:
        found.add(held.said[model].maps)
    return found.finish()


def _labels(held: _Held, inferred: Inferred, scheme: LabelScheme) -> NDArray[Any]:
    return resample_to_original.label_map(inferred.maps, scheme, (held.reference.shape[0], held.reference.shape[1]))


def _dice(labels: NDArray[Any], reference: NDArray[Any], scheme: LabelScheme) -> float:
    ignored = None if scheme.ignore is None else reference == scheme.ignore
    found = [one.dice for one in counts(labels, reference, scheme.foreground, ignored).values() if not math.isnan(one.dice)]
    return float(np.mean(found)) if found else 1.0


def _refined(
    scheme: LabelScheme, held_out: Iterator[_Held], models: Names
) -> tuple[dict[str, PostProcessing], float, Calibration | None]:
    """Post-processing of each class that raises its Dice, the Dice with it, and the calibration of the choice."""
    tried = _candidates()
    dice: dict[str, list[list[float]]] = {name: [] for name in scheme.foreground}
    confidence, plain, empty = [], [], []
    for held in held_out:
        inferred = _together(held, models, scheme)
        labels = _labels(held, inferred, scheme)
        for name, member in scheme.foreground.items():
            dice[name].append(_each_way(labels, held.reference, member, scheme.ignore, tried))
        confidence.append(assess(inferred.maps, inferred.opinions, scheme).value)
        plain.append(_dice(labels, held.reference, scheme))
        empty.append(not found_in(inferred.maps, scheme))
    chosen, after = {}, []
    for name, rows in dice.items():
        means = np.mean(rows, axis=0)
        best = int(means.argmax())
        if means[best] > means[0] + _LEAST_GAIN:
            chosen[name] = tried[best]
        after.append(float(means[best] if name in chosen else means[0]))
    return chosen, float(np.mean(after)), fit(confidence, plain, empty, "value")


def _candidates() -> list[PostProcessing]:
    """All ways to treat a class, nothing first."""
    ways = [PostProcessing(share, False, fill) for share in (0.0, *_SPECKS) for fill in (False, True)]
    return [*ways, PostProcessing(0.0, True, False), PostProcessing(0.0, True, True)]


def _each_way(
    labels: NDArray[Any], reference: NDArray[Any], member: tuple[int, ...], ignore: int | None, tried: list[PostProcessing]
) -> list[float]:
    mask, true = np.isin(labels, member), np.isin(reference, member)
    counted = np.ones_like(true) if ignore is None else reference != ignore
    # Filling takes background only, as `postprocess.apply` does.
    free = (labels == 0) | mask
    found = []
    for what in tried:
        cleaned = clean(mask, what) & free & counted
        total = int(cleaned.sum()) + int((true & counted).sum())
        found.append(2 * int((cleaned & true).sum()) / total if total else 1.0)
    return found
