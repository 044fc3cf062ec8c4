"""Scores of cases to scores of the set: from summed counts (pooled, micro), and means over classes and images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from autoseg.metrics.objects import NO_OBJECTS, ObjectScore
from autoseg.metrics.overlap import Counts, averages, mean, total
from autoseg.metrics.rules import DEFINITIONS, OBJECTS, OVERLAP, PER_IMAGE, RULE, UNDEFINED, is_defined
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
        cases=tuple(cases), classes=classes, overall=_overall(cases, classes, added), undefined=undefined, unit=unit,
        rule=RULE, definitions=definitions, tolerance=tolerance, thin=tuple(name for name in names if name in thin),
        calibration=calibration,
    )  # fmt: skip


def added_metrics(cases: Iterable[CaseScore]) -> list[str]:
    """Names of the metrics of other packages in the scores of any case."""
    return list(dict.fromkeys(metric for case in cases for score in case.classes.values() for metric in score.added))


def _summarise_class(scores: Sequence[ClassScore], thin: bool, added: Sequence[str]) -> ClassSummary:
    pixels, objects = _sum(scores), _sum_of_objects(scores)
    metrics = [metric for metric in (*PER_IMAGE, *added) if thin or metric != "cldice"]
    of_pixels = {metric: float(getattr(pixels, metric)) for metric in (*OVERLAP, "area_bias")}
    return ClassSummary(
        pooled=of_pixels | {metric: float(getattr(objects, metric)) for metric in OBJECTS},
        per_image={metric: _metric_summary([score.value(metric) for score in scores]) for metric in metrics},
    )


def _metric_summary(values: Sequence[float]) -> MetricSummary:
    defined = np.array([value for value in values if is_defined(value)])
    missing = len(values) - len(defined)
    if not len(defined):
        return MetricSummary(UNDEFINED, UNDEFINED, UNDEFINED, missing)
    return MetricSummary(float(defined.mean()), float(defined.std()), float(np.median(defined)), missing)


def _overall(cases: Sequence[CaseScore], classes: Mapping[str, ClassSummary], added: Sequence[str]) -> dict[str, float]:
    """All classes together: "micro.dice" and "class_mean.dice" of summed counts, "per_image.dice" the mean over the classes of
    the means over images, ..."""
    overall = averages({name: _sum([case.classes[name] for case in cases]) for name in classes})
    for metric in (*PER_IMAGE, *added):
        means = [one.per_image[metric].mean for one in classes.values() if metric in one.per_image]
        if means:
            overall[f"per_image.{metric}"] = mean(means)
    return overall


def _sum_of_objects(scores: Iterable[ClassScore]) -> ObjectScore:
    return sum((ObjectScore(one.object_tp, one.object_fp, one.object_fn) for one in scores), NO_OBJECTS)


def _sum(scores: Iterable[ClassScore]) -> Counts:
    return total(Counts(score.tp, score.fp, score.fn) for score in scores)
