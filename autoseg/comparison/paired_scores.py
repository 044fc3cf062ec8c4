"""Scores of cases as a matrix (models, units) that tests and rankings can be made of."""

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
    "Tests and rankings take each case's mean over the classes that stand in its reference or in any model's mask. Where a "
    "class is rightly absent from one model's mask and another found it, the first counts as 1 (that model was right), so "
    "that false alarms cost something; distances, and other metrics without a best value, are compared where all models have "
    "one. Cases of one patient count once, with their mean, where the dataset names its groups."
)


@dataclass(frozen=True)
class Paired:
    """Values (models, units) of the same units for all models. units: names of cases or groups."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    matrix: NDArray[np.float64]


def paired(dataset_results: DatasetResults, metric: str) -> Paired:
    """One value for each model and unit, over the cases all models have."""
    models = list(dataset_results.models.values())
    scored = [model.cases for model in models]
    common = [case for case in scored[0] if all(case in one for one in scored)]
    rows = {case: case_values([one[case] for one in scored], metric) for case in common}
    rows = {case: values for case, values in rows.items() if values is not None}
    grouped = _by_group(rows, dataset_results.spec.groups)
    matrix = np.array(list(grouped.values()), float).T.reshape(len(models), len(grouped))
    return Paired(tuple(dataset_results.models), tuple(grouped), matrix)


def case_values(scores: Sequence[CaseScore], metric: str) -> list[float] | None:
    """One case's value of each model; None where it says nothing of any (see `PAIRING`)."""
    best = METRICS.get(metric).correct_absence_value
    rows = []
    for name in scores[0].classes:
        values = [score.classes[name].value(metric) for score in scores]
        defined = [is_defined(value) for value in values]
        if all(defined):
            rows.append(values)
        elif any(defined) and is_defined(best):
            rows.append([value if known else best for value, known in zip(values, defined, strict=True)])
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else None


def mean_over_classes(score: CaseScore, metric: str) -> float:
    """Mean over the classes where it is defined; not-a-number where it is nowhere."""
    values = [one.value(metric) for one in score.classes.values()]
    defined = [value for value in values if is_defined(value)]
    return sum(defined) / len(defined) if defined else math.nan


def dice_of_cases(model: ModelResults) -> dict[str, float]:
    """Case -> mean Dice over its classes, of the cases where it is defined."""
    found = {name: mean_over_classes(case, "dice") for name, case in model.cases.items()}
    return {name: value for name, value in found.items() if is_defined(value)}


def shows_something(score: CaseScore) -> bool:
    """Whether the reference is not empty. Easy and hard cases are chosen among these, as in the second study, where every
    image shows something: one stray pixel on an empty image would make the hardest case."""
    return any(one.tp + one.fn for one in score.classes.values())


def extremes(dice: Mapping[str, float], share: float) -> tuple[list[str], list[str], str]:
    """The cases of highest and of lowest Dice, `share` of all each (at least one), and what to know of ties ("" if nothing).

    Ties are parted by name, so that the same scores give the same cases.
    """
    order = sorted(dice, key=lambda case: (-dice[case], case))
    count = max(1, round(share * len(order)))
    easy, hard = order[:count], order[len(order) - count :]
    notes = []
    for what, edge, chosen in (("highest", dice[easy[-1]], easy), ("lowest", dice[hard[0]], hard)):
        tied = sum(value == edge for value in dice.values())
        if tied > sum(dice[case] == edge for case in chosen):
            notes.append(f"{tied} cases share a Dice of {edge:.3f} at the {what} end, so that their names decided")
    return easy, hard, "; ".join(notes)


def _by_group(rows: Mapping[str, list[float] | None], groups: Mapping[str, str]) -> dict[str, list[float]]:
    members: dict[str, list[list[float]]] = {}
    for case, values in rows.items():
        if values is not None:
            members.setdefault(groups.get(case, case), []).append(values)
    return {unit: [sum(column) / len(column) for column in zip(*several, strict=True)] for unit, several in members.items()}
