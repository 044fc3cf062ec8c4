"""Objects of two masks: found, invented, missed. Oracles: MONAI's panoptic quality, and a comparison of all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_panoptic_quality
from scipy.ndimage import label

from autoseg.metrics.objects import NO_OBJECTS, ObjectScore, object_score

_CORNERS = np.ones((3, 3))


def blobs(seed: int, count: int = 12, side: int = 80) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for row, column, radius in random.uniform((0, 0, 1), (side, side, 9), (count, 3)):
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return mask


def changed(mask: np.ndarray, seed: int) -> np.ndarray:
    """Moved, one half worn away, with a few inventions."""
    moved = np.roll(mask, (1, 2), (0, 1))
    moved[:20] &= np.random.default_rng(seed).random((20, moved.shape[1])) < 0.6
    return moved | blobs(seed + 100, 3)


def all_pairs(prediction: np.ndarray, reference: np.ndarray) -> ObjectScore:
    predicted, count = label(prediction, _CORNERS)
    expected, expected_count = label(reference, _CORNERS)
    values = [
        np.sum((predicted == one) & (expected == other)) / np.sum((predicted == one) | (expected == other))
        for one in range(1, count + 1)
        for other in range(1, expected_count + 1)
    ]
    matches = [value for value in values if value > 0.5]
    return ObjectScore(len(matches), count - len(matches), expected_count - len(matches), sum(matches))


@pytest.mark.parametrize("seed", range(6))
def test_all_pairs_give_the_same(seed: int) -> None:
    reference = blobs(seed)
    prediction = changed(reference, seed)
    score, expected = object_score(prediction, reference), all_pairs(prediction, reference)
    assert (score.tp, score.fp, score.fn) == (expected.tp, expected.fp, expected.fn) and score.tp and score.fp
    assert score.iou == pytest.approx(expected.iou)


@pytest.mark.parametrize("seed", range(3))
def test_monai_gives_the_same_panoptic_quality(seed: int) -> None:
    reference = blobs(seed)
    prediction = changed(reference, seed)
    numbered = [torch.from_numpy(label(mask, _CORNERS)[0].astype(np.int64)) for mask in (prediction, reference)]
    score = object_score(prediction, reference)
    by_monai = {name: float(compute_panoptic_quality(*numbered, metric_name=name)) for name in ("pq", "rq")}
    assert score.panoptic_quality == pytest.approx(by_monai["pq"], abs=1e-5)
    assert score.object_f1 == pytest.approx(by_monai["rq"], abs=1e-5)


def test_empty_masks() -> None:
    empty, one = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    one[2:5, 2:5] = True
    assert object_score(empty, empty) == NO_OBJECTS and math.isnan(NO_OBJECTS.object_f1)
    missed, invented = object_score(empty, one), object_score(one, empty)
    assert (missed.object_sensitivity, missed.object_f1, missed.panoptic_quality) == (0, 0, 0)
    assert math.isnan(missed.object_precision) and math.isnan(invented.object_sensitivity)
    assert (invented.object_precision, invented.object_f1) == (0, 0)


def test_half_an_overlap_is_no_match_and_corners_join() -> None:
    reference, prediction = np.zeros((6, 12), bool), np.zeros((6, 12), bool)
    reference[1, :4] = True
    prediction[1, :2] = True  # IoU 0.5
    assert object_score(prediction, reference) == ObjectScore(0, 1, 1)
    prediction[1, 2] = True
    assert object_score(prediction, reference) == ObjectScore(1, 0, 0, 0.75)
    corners = np.eye(6, 12, dtype=bool)
    assert object_score(corners, corners) == ObjectScore(1, 0, 0, 1.0)


def test_a_mask_of_noise_needs_no_table_of_all_pairs() -> None:
    first, second = (np.random.default_rng(seed).random((1500, 1500)) < 0.1 for seed in (0, 1))
    score = object_score(first, second)
    assert score.fp > 50_000 and score.fn > 50_000


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shape"):
        object_score(np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_counts_are_added() -> None:
    assert ObjectScore(1, 2, 3, 0.5) + ObjectScore(1, 0, 0, 0.75) == ObjectScore(2, 2, 3, 1.25)
