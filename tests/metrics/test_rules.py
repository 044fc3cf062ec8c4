import math

from autoseg.metrics import rules
from autoseg.schema.scores import BUILT_IN_METRICS, COMPARABLE_METRICS


def test_every_metric_has_a_definition():
    assert set(BUILT_IN_METRICS) <= set(rules.DEFINITIONS)
    assert set(rules.PER_IMAGE) == set(BUILT_IN_METRICS) == {*COMPARABLE_METRICS, "area_bias"}


def test_zero_denominator_is_undefined():
    assert math.isnan(rules.quotient(0, 0)) and not rules.is_defined(rules.quotient(0, 0))
    assert rules.quotient(0, 3) == 0 and rules.is_defined(0.0)


def test_distances_need_both_masks():
    assert [rules.distance_is_defined(a, b) for a in (True, False) for b in (True, False)] == [True, False, False, False]
