"""Scores of cases to scores of the set: pooled (from summed counts) and per image (means)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from autoseg.metrics.overlap import Counts, total
from autoseg.metrics.rules import DEFINITIONS, OVERLAP, RULE, SHAPE, UNDEFINED, is_defined
from autoseg.schema.scores import Calibration, CaseScore, ClassScore, ClassSummary, MetricSummary, Scores
from autoseg.support.extensions import METRICS


def summarise(
    cases: Sequence[CaseScore],
    unit: str,
    tolerance: float = 0.0,
    thin: Collection[str] = (),
    calibration: Calibration | None = None,
) -> Scores:
    """Scores of a set. All cases have the same classes. unit: of distances, "mm" or "px". Other parameters: see Scores."""
    names = list(cases[0].classes) if cases else []
    added = added_metrics(cases)
    classes = {name: _summarise_class([case.classes[name] for case in cases], name in thin, added) for name in names}
    undefined = sum(metric.undefined for one in classes.values() for metric in one.per_image.values())
    definitions = {**DEFINITIONS, **{name: METRICS.get(name).definition for name in added}}
    return Scores(
        cases=tuple(cases), classes=classes, overall=_overall(list(classes.values()), added), undefined=undefined, unit=unit,
        rule=RULE, definitions=definitions, tolerance=tolerance, thin=tuple(name for name in names if name in thin),
        calibration=calibration,
    )  # fmt: skip


def added_metrics(cases: Iterable[CaseScore]) -> list[str]:
    """Names of the metrics of other packages in the scores of any case."""
    return list(dict.fromkeys(metric for case in cases for score in case.classes.values() for metric in score.added))


def _summarise_class(scores: Sequence[ClassScore], thin: bool, added: Sequence[str]) -> ClassSummary:
    summed = total(Counts(score.tp, score.fp, score.fn) for score in scores)
    metrics = [metric for metric in (*OVERLAP, *SHAPE, *added) if thin or metric != "cldice"]
    return ClassSummary(
        pooled={metric: float(getattr(summed, metric)) for metric in OVERLAP},
        per_image={metric: _metric_summary([score.value(metric) for score in scores]) for metric in metrics},
    )


def _metric_summary(values: Sequence[float]) -> MetricSummary:
    defined = np.array([value for value in values if is_defined(value)])
    missing = len(values) - len(defined)
    if not len(defined):
        return MetricSummary(UNDEFINED, UNDEFINED, UNDEFINED, missing)
    return MetricSummary(float(defined.mean()), float(defined.std()), float(np.median(defined)), missing)


def _overall(classes: Sequence[ClassSummary], added: Sequence[str]) -> dict[str, float]:
    """Means over the classes: "pooled.dice" of the pooled values, "per_image.dice" of the per-image means, ..."""
    overall = {f"pooled.{metric}": _mean(one.pooled[metric] for one in classes) for metric in OVERLAP}
    for metric in (*OVERLAP, *SHAPE, *added):
        means = [one.per_image[metric].mean for one in classes if metric in one.per_image]
        if means:
            overall[f"per_image.{metric}"] = _mean(means)
    return overall


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if is_defined(value)]
    return sum(defined) / len(defined) if defined else UNDEFINED
