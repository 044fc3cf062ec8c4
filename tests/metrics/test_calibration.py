import math

import numpy as np
import pytest

from autoseg.metrics.calibration import BINS, EMPTY, far_from, reliability_of_classes, reliability_of_region


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


def test_brier_score_equals_the_definition():
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(3, 12, 9)) * 2
    maps = np.exp(logits) / np.exp(logits).sum(0)
    reference = draw.integers(0, 3, (12, 9))
    ignore = draw.random((12, 9)) < 0.3
    truth = np.stack([reference == label for label in range(3)])
    expected = ((maps - truth) ** 2).sum(0)[~ignore].mean() / 2
    # An ignored pixel may have a label that is no class.
    reference = np.where(ignore, 255, reference)
    assert reliability_of_classes(maps, reference, ignore).brier == pytest.approx(expected)
    # With two classes it is the square of either's error, as for a region.
    inside = draw.random((12, 9))
    member = draw.random((12, 9)) < 0.5
    of_classes = reliability_of_classes(np.stack([1 - inside, inside]), member.astype(int))
    assert of_classes.brier == pytest.approx(reliability_of_region(inside, member).brier)
    assert reliability_of_region(inside, member).brier == pytest.approx(((inside - member) ** 2).mean())
    assert (of_classes + of_classes).brier == pytest.approx(of_classes.brier) and math.isnan(EMPTY.brier)


def test_what_is_far_from_the_foreground_is_left_out():
    member = np.zeros((120, 160), bool)
    member[50:60, 70:80] = True
    far = far_from(member)
    rows, columns = np.nonzero(~far)
    # The diagonal has 200 pixels.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (46, 63, 66, 83)
    assert far_from(np.zeros((9, 9), bool)).all()
    # Sure and right in the background, unsure at the border: the mean over all pixels hides it.
    probability = np.where(far, 0.0, 0.5)
    everywhere, near = (reliability_of_region(probability, member, left_out) for left_out in (None, far))
    assert near.brier == pytest.approx(0.25) and everywhere.brier < 0.01 < near.ece
