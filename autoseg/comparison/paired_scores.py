"""Scores of cases as a matrix (models, units) for tests and rankings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.metrics.rules import is_defined
from autoseg.schema.scores import CaseScore
from autoseg.support.extensions import METRICS

PAIRING = (
    "Tests and rankings use each case's mean over the classes in its reference or in any model's mask. If a class is absent "
    "from the reference and one model predicts it, the models that do not predict it have the value 1 for it: so false "
    "positives have a cost (HD95 with the image's diagonal: the value 0). Other distances, and other metrics without a best "
    "value, are compared on the cases where all models have one. If the dataset has groups, the cases of one patient count "
    "once, with their mean."
)


@dataclass(frozen=True)
class PairedScores:
    """matrix: (models, units), the same units for all models. names: of the models. units: names of cases or groups."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    matrix: NDArray[np.float64]


def pair_scores(dataset_results: DatasetResults, metric: str) -> PairedScores:
    """One value per model and unit, over the cases that all models have."""
    models = list(dataset_results.models.values())
    scored = [model.cases for model in models]
    common = [case for case in scored[0] if all(case in one for one in scored)]
    rows = {case: case_values([one[case] for one in scored], metric) for case in common}
    rows = {case: values for case, values in rows.items() if values is not None}
    grouped = group_means(rows, dataset_results.spec.groups)
    matrix = np.array(list(grouped.values()), float).T.reshape(len(models), len(grouped))
    return PairedScores(tuple(dataset_results.models), tuple(grouped), matrix)


def case_values(scores: Sequence[CaseScore], metric: str) -> list[float] | None:
    """One case's value for each model; None if no class is defined for the comparison (see `PAIRING`)."""
    best = METRICS.get(metric).correct_absence_value
    rows = []
    for name in scores[0].classes:
        values = [score.classes[name].value(metric) for score in scores]
        defined = [is_defined(value) for value in values]
        if all(defined):
            rows.append(values)
        elif any(defined) and is_defined(best):
            rows.append([value if present else best for value, present in zip(values, defined, strict=True)])
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else None


def mean_over_classes(score: CaseScore, metric: str) -> float:
    """Mean over the classes where the metric is defined; not-a-number if it is defined for none."""
    values = [one.value(metric) for one in score.classes.values()]
    defined = [value for value in values if is_defined(value)]
    return sum(defined) / len(defined) if defined else math.nan


def dice_of_cases(model: ModelResults) -> dict[str, float]:
    """Case -> mean Dice over its classes, for the cases where it is defined."""
    dice = {name: mean_over_classes(case, "dice") for name, case in model.cases.items()}
    return {name: value for name, value in dice.items() if is_defined(value)}


def has_foreground(score: CaseScore) -> bool:
    """Whether the reference is not empty. Easy and hard cases are selected among these, as in the second study. Otherwise one
    false-positive pixel in an image without objects would make it the hardest case."""
    return any(one.tp + one.fn for one in score.classes.values())


def easy_and_hard_cases(dice: Mapping[str, float], fraction: float) -> tuple[list[str], list[str], str]:
    """The cases of highest Dice, those of lowest Dice (`fraction` of all each, at least one), and a note on ties ("" if none).

    Ties are broken by name, so that the same scores give the same cases.
    """
    order = sorted(dice, key=lambda case: (-dice[case], case))
    count = max(1, round(fraction * len(order)))
    easy, hard = order[:count], order[len(order) - count :]
    notes = []
    for what, edge, chosen in (("highest", dice[easy[-1]], easy), ("lowest", dice[hard[0]], hard)):
        tied = sum(value == edge for value in dice.values())
        if tied > sum(dice[case] == edge for case in chosen):
            notes.append(f"{tied} cases have the {what} selected Dice of {edge:.3f}; the tie was broken by name")
    return easy, hard, "; ".join(notes)


def group_means(rows: Mapping[str, list[float] | None], groups: Mapping[str, str]) -> dict[str, list[float]]:
    members: dict[str, list[list[float]]] = {}
    for case, values in rows.items():
        if values is not None:
            members.setdefault(groups.get(case, case), []).append(values)
    return {unit: [sum(column) / len(column) for column in zip(*several, strict=True)] for unit, several in members.items()}
