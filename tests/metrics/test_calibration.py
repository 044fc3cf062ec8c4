import math

import numpy as np
import pytest

from autoseg.metrics.calibration import BINS, EMPTY, reliability_of_classes, reliability_of_region


def slow_ece(confidence, right):
    error = 0.0
    for low in range(BINS):
        inside = (confidence >= low / BINS) & ((confidence < (low + 1) / BINS) | (low == BINS - 1))
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return error


def test_ece_equals_the_definition_over_cases():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(2, 3, 20, 30)) * 2
    maps = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    references = draw.integers(0, 3, (2, 20, 30))
    reliability = sum((reliability_of_classes(*pair) for pair in zip(maps, references, strict=True)), EMPTY)
    expected = slow_ece(maps.max(1).ravel(), (maps.argmax(1) == references).ravel())
    assert reliability.ece == pytest.approx(expected) and reliability.pixels.sum() == 2 * 20 * 30


def test_ignored_pixels_are_not_counted():
    maps = np.stack([np.full((4, 4), 0.8), np.full((4, 4), 0.2)])
    reference = np.zeros((4, 4), int)
    ignore = np.zeros((4, 4), bool)
    ignore[0] = True
    reliability = reliability_of_classes(maps, reference, ignore)
    assert reliability.pixels.sum() == 12 and reliability.ece == pytest.approx(0.2)
    assert math.isnan(EMPTY.ece)


def test_region_reliability_uses_the_probability_of_being_inside():
    probability = np.full((10, 10), 0.1)
    member = np.zeros((10, 10), bool)
    member[0] = True
    assert reliability_of_region(probability, member).ece == pytest.approx(0.0)
    assert reliability_of_region(probability + 0.9, member).ece == pytest.approx(0.9)
