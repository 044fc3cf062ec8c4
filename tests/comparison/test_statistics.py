import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from autoseg.comparison import statistics
from autoseg.comparison.cost import pareto

NAMES = ("a", "b", "c", "d")


def matrix(units=40, seed=0):
    """a and b alike, c worse, d worst; units differ in difficulty, the same for all."""
    draw = np.random.default_rng(seed)
    difficulty = draw.normal(0, 0.2, units)
    return np.array([0.9 + difficulty + shift + draw.normal(0, 0.02, units) for shift in (0, 0, -0.05, -0.3)])


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 -> times 3, 2, 1, never falling.
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def test_pairs_are_tested_on_the_same_units():
    values = matrix()
    tests = statistics.paired_tests(NAMES, values, statistics.bootstrap_means(values))
    by_pair = {(test.first, test.second): test for test in tests}
    assert len(tests) == 6
    assert by_pair["a", "d"].p == wilcoxon(values[0] - values[3], zero_method="pratt").pvalue
    assert by_pair["a", "d"].p_adjusted < 0.001 < 0.05 < by_pair["a", "b"].p_adjusted
    low, mean, high = (getattr(by_pair["a", "c"].difference, name) for name in ("low", "mean", "high"))
    # The units' shared difficulty is out of the difference: unpaired it would be ten times as wide.
    assert low < mean < high and high - low < 0.02 and mean == pytest.approx(0.05, abs=0.01)
    assert statistics.signed_rank(np.zeros(9)) == 1.0


def test_bootstrap_interval_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(0.7, 0.1, (1, 400))
    result = statistics.interval(values[0], statistics.bootstrap_means(values)[:, 0])
    expected = 1.96 * values.std() / math.sqrt(400)
    assert result.high - result.mean == pytest.approx(expected, rel=0.1)
    assert np.array_equal(statistics.bootstrap_means(values), statistics.bootstrap_means(values))


def test_ranking_order_and_stability():
    values = matrix()
    result = statistics.rank(NAMES, values, statistics.bootstrap_means(values), higher_is_better=True)
    assert set(result.order[:2]) == {"a", "b"} and result.order[2:] == ("c", "d")
    assert result.first["a"] + result.first["b"] == pytest.approx(1) and result.first["d"] == 0
    assert result.friedman_p == friedmanchisquare(*values).pvalue < 1e-9
    assert 0.6 < result.tau <= 1 and result.mean_ranks["d"] > 3.9
    assert ("a", "b") in [tuple(sorted(group)) for group in result.cliques]
    down = statistics.rank(NAMES, values, statistics.bootstrap_means(values), higher_is_better=False)
    assert down.order[0] == "d"


def test_critical_difference_equals_demsars_table():
    # Demsar 2006, table 5: q is 2.343 for three models, 2.728 for five.
    assert statistics.critical_difference(3, 10) == pytest.approx(2.343 * math.sqrt(3 * 4 / 60), rel=1e-3)
    assert statistics.critical_difference(5, 30) == pytest.approx(2.728 * math.sqrt(5 * 6 / 180), rel=1e-3)


def test_cliques_are_maximal():
    assert statistics.cliques(NAMES, [1.0, 1.5, 2.4, 4.0], 1.0) == (("a", "b"), ("b", "c"))
    assert statistics.cliques(NAMES, [1.0, 1.2, 1.4, 1.6], 1.0) == (NAMES,)
    assert statistics.cliques(NAMES, [1.0, 3.0, 5.0, 7.0], 1.0) == ()


def test_estimates_leave_out_undefined_folds():
    result = statistics.estimate({"0": 0.5, "1": 0.7, "2": math.nan})
    assert result.mean == pytest.approx(0.6) and result.std == pytest.approx(math.sqrt(0.02))
    assert math.isnan(statistics.estimate({"0": 0.5}).std) and math.isnan(statistics.estimate({}).mean)


def test_risk_coverage_by_hand():
    coverage, risk, area = statistics.risk_coverage([0.9, 0.5, 0.7], [0.0, 0.6, 0.3])
    assert (
        coverage == pytest.approx([1 / 3, 2 / 3, 1]) and risk == pytest.approx([0, 0.15, 0.3]) and area == pytest.approx(0.15)
    )
    # A confidence that says nothing gives the mean risk everywhere, whatever the order of the cases.
    assert statistics.risk_coverage([0.5] * 3, [0.0, 0.6, 0.3])[2] == pytest.approx(0.3)
    # Let through: nothing, 0.3 of one case, 0.9 of one case; of three cases.
    assert statistics.augrc(coverage, risk) == pytest.approx((0 + 0.3 / 3 + 0.9 / 3) / 3)


def test_pareto_front_by_hand():
    costs, scores = {"a": 1, "b": 2, "c": 3, "d": 2}, {"a": 0.5, "b": 0.4, "c": 0.9, "d": 0.8}
    assert pareto(costs, scores) == ("a", "d", "c")


def test_rank_biserial_by_hand():
    # Ranks 1, 2 and 3; the second is below zero.
    assert statistics.rank_biserial(np.array([0.1, -0.2, 0.0, 0.3])) == pytest.approx((1 - 2 + 3) / 6)
    assert statistics.rank_biserial(np.array([0.1, 0.2])) == 1 and statistics.rank_biserial(np.array([-0.1, -0.2])) == -1
    assert math.isnan(statistics.rank_biserial(np.zeros(3)))
