"""What the stored scores say: means with intervals by patient, and paired tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from autoseg.comparison.statistics import bootstrap_means, holm, percentiles, signed_rank
from benchmarks.race.arms import AUTOSEG, base, find, in_order
from benchmarks.race.jobs import Record
from benchmarks.race.scorer import METRICS, case_mean

# A race of one set, time and device.
Heat = tuple[str, float, str]


@dataclass(frozen=True)
class Summary:
    """Mean over patients with the limits of its 95 % interval (bootstrap over patients)."""

    mean: float
    low: float
    high: float
    patients: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of the Dice of the patients that both arms have. p: Wilcoxon's signed-rank test, after Holm over the heat's pairs."""

    first: str
    second: str
    difference: Summary
    p: float


def heats(records: Iterable[Record]) -> dict[Heat, dict[str, list[Record]]]:
    """Scored jobs by heat and arm, arms in their usual order."""
    found: dict[Heat, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        job = record["job"]
        if "cases" in record:
            found[job["set"], job["minutes"], job["device"]][job["arm"]].append(record)
    return {heat: {arm: found[heat][arm] for arm in in_order(found[heat])} for heat in sorted(found)}


def by_patient(records: Iterable[Record], metric: str) -> dict[str, float]:
    """Mean of each patient: over its cases, of each case over the seeds. Cases without any class in both masks are left out."""
    of_cases: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        for case, scores in record["cases"].items():
            value = case_mean(scores, metric)
            if value is not None:
                of_cases[record["patients"][case], case].append(value)
    of_patients: dict[str, list[float]] = defaultdict(list)
    for (patient, _), values in of_cases.items():
        of_patients[patient].append(fmean(values))
    return {patient: fmean(values) for patient, values in sorted(of_patients.items())}


def summary(values: Sequence[float]) -> Summary:
    """Not-a-number for no values."""
    if not values:
        return Summary(math.nan, math.nan, math.nan, 0)
    resampled = bootstrap_means(np.array([values]))[:, 0]
    return Summary(fmean(values), *percentiles(resampled), len(values))


def summaries(records: Sequence[Record]) -> dict[str, Summary]:
    """Of each metric."""
    return {metric: summary(list(by_patient(records, metric).values())) for metric in METRICS}


def comparisons(arms: Mapping[str, list[Record]]) -> list[Comparison]:
    """Each arm of autoseg against each arm of others, and each varied one against its base, on the folds and seeds that both
    have trained."""
    pairs = [
        (first, second)
        for first in arms if find(first).side == AUTOSEG
        for second in arms if find(second).side != AUTOSEG or (second == base(first) and second != first)
    ]  # fmt: skip
    found = []
    for first, second in pairs:
        one, other = (by_patient(part, "dice") for part in _shared(arms[first], arms[second]))
        differences = [one[patient] - other[patient] for patient in one if patient in other]
        if differences:
            found.append((first, second, summary(differences), signed_rank(np.array(differences))))
    adjusted = holm([p for *_, p in found])
    return [
        Comparison(first=first, second=second, difference=difference, p=p)
        for (first, second, difference, _), p in zip(found, adjusted, strict=True)
    ]


def _shared(one: list[Record], other: list[Record]) -> tuple[list[Record], list[Record]]:
    """Those of both lists whose fold and seed is in both."""
    keys = {_key(record) for record in one} & {_key(record) for record in other}
    return [record for record in one if _key(record) in keys], [record for record in other if _key(record) in keys]


def _key(record: Mapping[str, Any]) -> tuple[int, int]:
    return record["job"]["fold"], record["job"]["seed"]
