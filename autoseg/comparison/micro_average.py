"""Confidence intervals of the micro averages (mDSC, mIoU, mPrec, mRec): means over folds of what summed counts give."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from autoseg.comparison import statistics
from autoseg.comparison.results import ModelResults
from autoseg.metrics.overlap import Counts
from autoseg.metrics.rules import OVERLAP
from autoseg.schema.comparison import Interval
from autoseg.schema.scores import CaseScore


def micro_intervals(model: ModelResults, groups: Mapping[str, str]) -> dict[str, Interval]:
    """"micro.dice", ... -> the mean over folds, with the percentiles of those of bootstrap samples.

    The units of each fold (its cases, or its groups: case -> group) are drawn with replacement, as many as it has, so that the
    interval is of the mean over these folds. Not-a-number if a fold has one unit only, which can only be drawn again.
    """
    folds = [_counts_of_units(scores.cases, groups) for scores in model.scores.values()]
    drawn = [statistics.bootstrap_sums(counts, fold) for fold, counts in enumerate(folds) if len(counts)]
    single = any(len(counts) < 2 for counts in folds)
    return {
        f"micro.{metric}": _interval(
            [_value(counts.sum(axis=0), metric) for counts in folds],
            [[_value(sums, metric) for sums in of_fold] for of_fold in drawn],
            undefined=single,
        )
        for metric in OVERLAP
    }


def _interval(of_folds: Sequence[float], drawn: Sequence[Sequence[float]], undefined: bool) -> Interval:
    """of_folds: the value of each fold. drawn: the same for each bootstrap sample."""
    with warnings.catch_warnings():
        # The mean over no defined value is undefined.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = float(np.nanmean(of_folds)) if len(of_folds) else math.nan
        means = np.nanmean(np.array(drawn), axis=0) if drawn else np.array([])
    means = means[~np.isnan(means)]
    if undefined or not len(means):
        return Interval(mean, math.nan, math.nan)
    low, high = statistics.percentiles(means)
    return Interval(mean, low, high)


def _counts_of_units(cases: Iterable[CaseScore], groups: Mapping[str, str]) -> statistics.Matrix:
    """TP, FP and FN (units, 3) of each case or group, summed over the foreground classes."""
    units: dict[str, list[int]] = {}
    for case in cases:
        sums = units.setdefault(groups.get(case.case, case.case), [0, 0, 0])
        for score in case.classes.values():
            for index, count in enumerate((score.tp, score.fp, score.fn)):
                sums[index] += count
    return np.array(list(units.values()), float).reshape(len(units), 3)


def _value(counts: Sequence[float], metric: str) -> float:
    tp, fp, fn = counts
    return float(getattr(Counts(int(tp), int(fp), int(fn)), metric))
