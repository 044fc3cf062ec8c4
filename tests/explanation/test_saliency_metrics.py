import math

import numpy as np
import pytest

from autoseg.explanation.saliency_metrics import saliency_metrics


def test_fractions_follow_the_heat_and_sum_to_1():
    region = np.zeros((100, 120), bool)
    region[40:60, 50:70] = True
    heat = np.zeros((100, 120), np.float32)
    heat[45, 55], heat[62, 55], heat[10, 10] = 2.0, 1.0, 1.0
    assert saliency_metrics(heat, region) == pytest.approx((0.5, 0.25, 0.25, 5))


def test_fractions_of_constant_heat_are_areas():
    region = np.zeros((50, 50), bool)
    region[10:20, 10:20] = True
    inside, ring, outside, _ = saliency_metrics(np.ones((50, 50), np.float32), region)
    assert inside == pytest.approx(100 / 2500) and inside + ring + outside == pytest.approx(1)


def test_without_heat_or_region_fractions_are_nan():
    empty = np.zeros((5, 5))
    assert math.isnan(saliency_metrics(empty, np.ones((5, 5), bool))[0]) and math.isnan(
        saliency_metrics(empty + 1, empty > 0)[0]
    )
