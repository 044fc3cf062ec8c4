"""From scores of cases to scores of the set: counts summed over it, and means over its images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from autoseg.metrics.overlap import Counts, total
from autoseg.metrics.rules import DEFINITIONS, DISTANCE, OVERLAP, RULE, UNDEFINED, is_defined
from autoseg.schema.scores import CaseScore, ClassScore, ClassSummary, MetricSummary, Scores


def summarise(cases: Sequence[CaseScore], unit: str) -> Scores:
    """Scores of a set. Every case must have the same classes. unit: of distances, "mm" or "px"."""
    names = list(cases[0].classes) if cases else []
    classes = {name: _summarise_class([case.classes[name] for case in cases]) for name in names}
    undefined = sum(metric.undefined for one in classes.values() for metric in one.per_image.values())
    return Scores(tuple(cases), classes, _overall(list(classes.values())), undefined, unit, RULE, dict(DEFINITIONS))


def _summarise_class(scores: Sequence[ClassScore]) -> ClassSummary:
    summed = total(Counts(score.tp, score.fp, score.fn) for score in scores)
    return ClassSummary(
        pooled={metric: float(getattr(summed, metric)) for metric in OVERLAP},
        per_image={metric: _spread([getattr(score, metric) for score in scores]) for metric in (*OVERLAP, *DISTANCE)},
    )


def _spread(values: Sequence[float]) -> MetricSummary:
    defined = np.array([value for value in values if is_defined(value)])
    missing = len(values) - len(defined)
    if not len(defined):
        return MetricSummary(UNDEFINED, UNDEFINED, UNDEFINED, missing)
    return MetricSummary(float(defined.mean()), float(defined.std()), float(np.median(defined)), missing)


def _overall(classes: Sequence[ClassSummary]) -> dict[str, float]:
    """Means over the classes: "pooled.dice" of the pooled numbers, "per_image.dice" of the per-image means, and so on."""
    overall = {f"pooled.{metric}": _mean(one.pooled[metric] for one in classes) for metric in OVERLAP}
    for metric in (*OVERLAP, *DISTANCE):
        overall[f"per_image.{metric}"] = _mean(one.per_image[metric].mean for one in classes)
    return overall


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if is_defined(value)]
    return sum(defined) / len(defined) if defined else UNDEFINED
