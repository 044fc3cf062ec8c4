"""Choose the best model, pair or triple of a dataset and its post-processing, on out-of-fold predictions only.

The Dice on the cases that chose is the largest of many, so it is too high. The choice is therefore made again for each fold,
on the cases of the other folds, and scored on that fold: nested cross-validation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from autoseg.io import RawDataset
from autoseg.prediction.calibration import fit
from autoseg.prediction.confidence import assess, predicted_classes
from autoseg.prediction.held_out import OPTIONS, HeldOutCase, dice_per_option, held_out_cases, mean_dice
from autoseg.prediction.inference_metadata import VALIDATION
from autoseg.prediction.predictor import model_folder, trained_folds, trained_models
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Splits
from autoseg.schema.prediction import BestChoice, Calibration, Candidate, FoldChoice, PostProcessing
from autoseg.schema.run import Choice, RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training.checkpoint import read_split

logger = logging.getLogger(__name__)

FILE = "best.json"
_MAX_GROUP = 3
# Groups are formed from this many models, the best by the class mean of the validation Dice: 41 candidates.
_MAX_MODELS = 6
# Smaller gains in Dice are chance: no post-processing then.
_MIN_GAIN = 0.001
ModelNames = tuple[str, ...]
Vector = NDArray[np.float64]
# Stands for the choice that is used: no fold is left out.
_NONE = -1


def find_best(dataset: Dataset, models: Sequence[str] | None = None, device: str = "auto") -> BestChoice:
    """Choose among `models` (None: all trained ones) on their common folds; write best.json into the results folder.

    Dice is the mean over classes and cases. Classes in neither mask are left out; a case without any class counts as 1.
    Raises AutosegError if no model is trained or the models have no common fold.
    """
    folders = _find_trained(dataset, models)
    splits, folds = _common_folds(dataset, folders)
    raw = RawDataset.open(dataset)
    scheme = raw.scheme
    patients = splits.case_groups(raw.spec.groups)

    def held_out(groups: Iterable[ModelNames]) -> Iterator[HeldOutCase]:
        names = list(dict.fromkeys(model for group in groups for model in group))
        return held_out_cases(dataset, raw, splits, folds, names, device)

    left_out = [_NONE, *folds] if len(folds) > 1 else [_NONE]
    candidates = {fold: _candidates(folders, [one for one in folds if one != fold]) for fold in left_out}
    if len(folders) > _MAX_MODELS:
        logger.info(f"combining the {_MAX_MODELS} best of {len(folders)} models by the class mean of the validation Dice")
    every_candidate = list(dict.fromkeys(group for several in candidates.values() for group in several))
    dice, fold_of_case, patient_of_case = _score_candidates(held_out(every_candidate), every_candidate, scheme, patients)
    if not len(fold_of_case):
        raise AutosegError(f"no held-out case of {dataset.name} is in {dataset.raw}", "put the images back")
    seen = {fold: cases_to_choose_on(fold, fold_of_case, patient_of_case) for fold in left_out}
    best = {fold: best_candidate(candidates[fold], dice, seen[fold]) for fold in left_out if seen[fold].any()}
    after, calibration = _score_options(held_out(best.values()), list(dict.fromkeys(best.values())), scheme, patients)
    options = {fold: best_options(after[group][seen[fold]]) for fold, group in best.items()}
    nested = [
        _fold_choice(fold, best[fold], options[fold], case_dice(after[best[fold]], options[fold])[fold_of_case == fold], scheme)
        for fold in best
        if fold in fold_of_case
    ]
    means = {group: float(dice[group].mean()) for group in candidates[_NONE]}
    chosen = best[_NONE]
    choice = BestChoice(
        dataset=dataset.name,
        models=chosen,
        folds=folds,
        dice=round(float(case_dice(after[chosen], options[_NONE]).mean()), 5),
        dice_before=round(means[chosen], 5),
        nested_dice=_mean_over_cases(nested),
        nested=tuple(nested),
        cases=len(fold_of_case),
        candidates=tuple(Candidate(group, round(means[group], 5)) for group in sorted(means, key=lambda group: -means[group])),
        postprocessing=_by_class(options[_NONE], scheme),
        identities=identities(dataset, chosen, folds),
        command=f"autoseg_predict -i IMAGES -o MASKS -d {dataset.number} -m best",
        calibration=calibration,
        saw_scored_cases=_training_choices(folders, folds),
    )
    write_artefact(dataset.results / FILE, choice)
    return choice


def cases_to_choose_on(left_out: int, fold_of_case: NDArray[np.int64], patient_of_case: Sequence[str]) -> NDArray[np.bool_]:
    """Which cases (N,) a choice sees that is scored on the fold `left_out`: none of the fold, nor of its patients."""
    scored = {patient for patient, fold in zip(patient_of_case, fold_of_case, strict=True) if fold == left_out}
    return np.array([patient not in scored for patient in patient_of_case], bool)


def best_candidate(candidates: Sequence[ModelNames], dice: Mapping[ModelNames, Vector], seen: NDArray[np.bool_]) -> ModelNames:
    """The candidate with the best mean of its Dice (N,) over the seen cases. Ties go to the smaller group: it costs less."""
    return min(candidates, key=lambda group: (-round(float(dice[group][seen].mean()), 4), len(group)))


def best_options(dice: Vector) -> tuple[int, ...]:
    """Class by class, the index of the option that raises the mean Dice most, 0 (none) where that is next to nothing.

    dice: (cases, classes, options), see `dice_per_option`.
    """
    chosen = [0] * dice.shape[1]
    for index in range(dice.shape[1]):
        means = []
        for option in range(dice.shape[2]):
            chosen[index] = option
            means.append(float(case_dice(dice, chosen).mean()))
        best = int(np.argmax(means))
        chosen[index] = best if means[best] > means[0] + _MIN_GAIN else 0
    return tuple(chosen)


def case_dice(dice: Vector, options: Sequence[int]) -> Vector:
    """Mean Dice (cases,) over the classes in either mask, with one option for each class; 1 if there is none."""
    of_class = dice[:, np.arange(dice.shape[1]), list(options)]
    defined = ~np.isnan(of_class)
    total = np.where(defined, of_class, 0.0).sum(axis=1)
    return np.where(defined.any(axis=1), total / np.maximum(defined.sum(axis=1), 1), 1.0)


def _training_choices(folders: dict[str, dict[int, Path]], folds: Sequence[int]) -> tuple[Choice, ...]:
    """What any of the trainings chose on the cases it is scored on."""
    runs = (read_artefact(trained[fold] / "run.json", RunRecord) for trained in folders.values() for fold in folds)
    made = {choice for run in runs for choice in run.saw_scored_cases}
    return tuple(choice for choice in get_args(Choice) if choice in made)


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
    names = list(models) if models else list(trained_models(dataset.results))
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
    fold_splits = {(model, fold): read_split(trained[fold], fold) for model, trained in folders.items() for fold in folds}
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


def _candidates(folders: dict[str, dict[int, Path]], folds: Sequence[int]) -> list[ModelNames]:
    """Single models, pairs and triples of the best models by the Dice of these folds' held-out cases."""

    def dice(model: str) -> float:
        return sum(_class_mean_dice(folders[model][fold]) for fold in folds)

    ranked = sorted(folders, key=lambda model: (-dice(model), model))[:_MAX_MODELS]
    return [group for count in range(1, _MAX_GROUP + 1) for group in combinations(ranked, count)]


def _class_mean_dice(fold: Path) -> float:
    """Of the fold's held-out cases, as far as they are scored; else that of the training, maybe on inner cases."""
    scores = fold / VALIDATION / "scores.json"
    if not scores.is_file():
        return read_artefact(fold / "run.json", RunRecord).class_mean_dice
    dice = read_artefact(scores, Scores).overall.get("class_mean.dice", math.nan)
    return 0.0 if math.isnan(dice) else dice


def _score_candidates(
    held_out: Iterator[HeldOutCase], groups: Sequence[ModelNames], scheme: LabelScheme, patients: Mapping[str, str]
) -> tuple[dict[ModelNames, Vector], NDArray[np.int64], list[str]]:
    """Group -> Dice (N,) of the out-of-fold cases, without post-processing; folds (N,) and patients of the cases."""
    dice: dict[ModelNames, list[float]] = {group: [] for group in groups}
    folds, patient_of_case = [], []
    for held in held_out:
        folds.append(held.fold)
        patient_of_case.append(patients[held.name])
        for group in groups:
            labels = held.label_map(held.average(group, scheme), scheme)
            dice[group].append(mean_dice(labels, held.reference, scheme))
    return {group: np.array(values) for group, values in dice.items()}, np.array(folds, np.int64), patient_of_case


def _score_options(
    held_out: Iterator[HeldOutCase], groups: Sequence[ModelNames], scheme: LabelScheme, patients: Mapping[str, str]
) -> tuple[dict[ModelNames, Vector], Calibration | None]:
    """Group -> Dice (N, classes, options) of the out-of-fold cases, and the calibration of the first group."""
    dice: dict[ModelNames, list[Vector]] = {group: [] for group in groups}
    confidence, dice_of_first, empty, patient_of_case = [], [], [], []
    for held in held_out:
        for group in groups:
            inferred = held.average(group, scheme)
            labels = held.label_map(inferred, scheme)
            dice[group].append(dice_per_option(labels, held.reference, scheme))
            if group == groups[0]:
                confidence.append(assess(inferred.maps, inferred.members, scheme).value)
                dice_of_first.append(mean_dice(labels, held.reference, scheme))
                empty.append(not predicted_classes(inferred.maps, scheme))
                patient_of_case.append(patients[held.name])
    calibration = fit(confidence, dice_of_first, empty, patient_of_case, "value")
    return {group: np.array(values) for group, values in dice.items()}, calibration


def _fold_choice(fold: int, models: ModelNames, options: Sequence[int], dice: Vector, scheme: LabelScheme) -> FoldChoice:
    """dice: of the fold's cases, with the choice that did not see them."""
    return FoldChoice(
        fold=fold, models=models, postprocessing=_by_class(options, scheme), dice=round(float(dice.mean()), 5), cases=len(dice)
    )


def _by_class(options: Sequence[int], scheme: LabelScheme) -> dict[str, PostProcessing]:
    return {name: OPTIONS[option] for name, option in zip(scheme.foreground, options, strict=True) if option}


def _mean_over_cases(nested: Sequence[FoldChoice]) -> float:
    cases = sum(one.cases for one in nested)
    return round(sum(one.dice * one.cases for one in nested) / cases, 5) if cases else math.nan
