"""Statistics of arrays: paired tests, bootstrap intervals, rankings.

A matrix is (models, units): a value of each model for each unit, the same units for all, none undefined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, kendalltau, rankdata, studentized_range, wilcoxon

from autoseg.schema.comparison import Estimate, Interval, PairTest, Ranking

Matrix = NDArray[np.float64]
RESAMPLES = 2000
_SEED = 0
# Bootstrap samples per block, to limit memory.
_BLOCK = 100
LEVEL = 0.05


def can_be_significant(units: int, pairs: int) -> bool:
    """Whether the smallest p of a two-sided signed-rank test, times the number of pairs (Holm's first step), is below LEVEL."""
    return pairs * 2.0 ** (1 - units) < LEVEL



def estimate(folds: dict[str, float]) -> Estimate:
    """Mean and sample standard deviation over the folds where the number is defined."""
    defined = [value for value in folds.values() if not math.isnan(value)]
    mean = sum(defined) / len(defined) if defined else math.nan
    std = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
    return Estimate(mean, std, folds)


def bootstrap_means(matrix: Matrix) -> Matrix:
    """Means (resamples, models) over units drawn with replacement, the same units for all models; the seed is fixed."""
    draw = np.random.default_rng(_SEED)
    units = matrix.shape[1]
    blocks = [matrix[:, draw.integers(0, units, (_BLOCK, units))].mean(axis=2).T for _ in range(RESAMPLES // _BLOCK)]
    return np.concatenate(blocks)


def bootstrap_sums(values: Matrix, stream: int) -> Matrix:
    """Sums (resamples, columns) of the rows of values (units, columns), as many drawn with replacement as there are.

    stream: separates the random numbers of sets that are drawn independently, such as folds.
    """
    draw = np.random.default_rng([_SEED, stream])
    units = len(values)
    even = np.full(units, 1 / units)
    return np.concatenate([draw.multinomial(units, even, _BLOCK) @ values for _ in range(RESAMPLES // _BLOCK)])


def percentiles(resampled: NDArray[Any]) -> tuple[float, float]:
    """The limits of the 95 % interval, of resampled numbers (resamples,)."""
    low, high = np.percentile(resampled, (50 * LEVEL, 100 - 50 * LEVEL))
    return float(low), float(high)


def interval(values: Matrix, resampled: Matrix) -> Interval:
    """Mean of values (units,) with the percentiles of its resampled means (resamples,)."""
    return Interval(float(values.mean()), *percentiles(resampled))


def paired_tests(names: Sequence[str], matrix: Matrix, resampled: Matrix) -> tuple[PairTest, ...]:
    """Tests of every pair of models, with Holm's correction."""
    pairs = list(combinations(range(len(names)), 2))
    p_values = [signed_rank(matrix[one] - matrix[other]) for one, other in pairs]
    return tuple(
        PairTest(
            first=names[one],
            second=names[other],
            units=matrix.shape[1],
            difference=interval(matrix[one] - matrix[other], resampled[:, one] - resampled[:, other]),
            p=p,
            p_adjusted=adjusted,
            effect=rank_biserial(matrix[one] - matrix[other]),
        )
        for (one, other), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    )


def signed_rank(differences: NDArray[Any]) -> float:
    """p of the two-sided Wilcoxon signed-rank test; Pratt's treatment of zeros. 1 if all are zero."""
    return float(wilcoxon(differences, zero_method="pratt").pvalue) if np.any(differences) else 1.0


def rank_biserial(differences: NDArray[Any]) -> float:
    """Effect size of the signed-rank test, -1 to 1: how much more of the ranks is above zero than below (Kerby, 2014). Zeros
    are left out; undefined if all are.
    """
    changed = differences[differences != 0]
    if not len(changed):
        return math.nan
    ranks = rankdata(np.abs(changed))
    return float((np.sign(changed) * ranks).sum() / ranks.sum())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p in the order given."""
    adjusted = [1.0] * len(p)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted


def rank(names: Sequence[str], matrix: Matrix, resampled: Matrix, higher_is_better: bool) -> Ranking:
    """Order by mean, mean ranks with Nemenyi's critical difference, and how stable the order is under resampling."""
    sign = -1.0 if higher_is_better else 1.0
    ranks = rankdata(sign * matrix, axis=0).mean(axis=1)
    means = sign * matrix.mean(axis=1)
    orders = rankdata(sign * resampled, axis=1)
    leading = (orders == orders.min(axis=1, keepdims=True)).astype(float)
    first = (leading / leading.sum(axis=1, keepdims=True)).mean(axis=0)
    taus = [kendalltau(means, sample).statistic for sample in sign * resampled]
    many = len(names) > 2 and matrix.shape[1] > 1
    difference = critical_difference(len(names), matrix.shape[1])
    return Ranking(
        order=tuple(names[index] for index in np.argsort(means, kind="stable")),
        mean_ranks={name: float(value) for name, value in zip(names, ranks, strict=True)},
        first={name: float(value) for name, value in zip(names, first, strict=True)},
        tau=float(np.nanmean(taus)) if not np.all(np.isnan(taus)) else math.nan,
        friedman_p=float(friedmanchisquare(*matrix).pvalue) if many else math.nan,
        critical_difference=difference,
        cliques=cliques(names, ranks, difference),
    )


def critical_difference(models: int, units: int) -> float:
    """Mean ranks with a larger difference differ at 5 % (Nemenyi's test; Demsar, JMLR 2006)."""
    quantile = studentized_range.ppf(1 - LEVEL, models, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(models * (models + 1) / (6 * units)))


def cliques(names: Sequence[str], ranks: Sequence[float] | NDArray[Any], difference: float) -> tuple[tuple[str, ...], ...]:
    """Largest groups of models, by rank, whose best and worst ranks differ by less than the critical difference."""
    order = sorted(range(len(names)), key=lambda index: ranks[index])
    groups: list[tuple[int, ...]] = []
    for start in range(len(order)):
        group = tuple(index for index in order[start:] if ranks[index] - ranks[order[start]] < difference)
        if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
            groups.append(group)
    return tuple(tuple(names[index] for index in group) for group in groups)


def risk_coverage(confidence: Sequence[float], risk: Sequence[float]) -> tuple[Matrix, Matrix, float]:
    """Coverage (units,), mean risk (units,) of the units at that coverage, and the area under the curve (mean over coverages).

    Units of equal confidence all have their mean risk, so their order does not matter.
    """
    values, losses = np.asarray(confidence, float), np.asarray(risk, float)
    order = np.argsort(-values, kind="stable")
    values, losses = values[order], losses[order]
    _, place = np.unique(-values, return_inverse=True)
    shared = np.bincount(place, losses) / np.bincount(place)
    running = np.cumsum(shared[place]) / np.arange(1, len(losses) + 1)
    return np.arange(1, len(losses) + 1) / len(losses), running, float(running.mean())


def augrc(coverage: Matrix, risk: Matrix) -> float:
    """Area under the generalised risk-coverage curve (Traub et al., NeurIPS 2024): the mean over coverages of the loss that is
    let through, as a fraction of all units. coverage, risk: (units,), of `risk_coverage`.
    """
    return float((coverage * risk).mean())
