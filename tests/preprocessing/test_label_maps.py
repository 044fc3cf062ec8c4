"""resize_label against a pixel-by-pixel reference implementation."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.preprocessing import label_maps
from autoseg.preprocessing.label_maps import resize_label


def axis_weights(old: int, new: int) -> np.ndarray:
    """(new, old): weight of each source pixel in each target pixel."""
    weights = np.zeros((new, old))
    for place in range(new):
        if new < old:
            start, end = place * old / new, (place + 1) * old / new
            for source in range(old):
                weights[place, source] = max(0.0, min(end, source + 1) - max(start, source)) * new / old
        else:
            middle = (place + 0.5) * old / new - 0.5
            first = int(np.floor(middle))
            for source, weight in ((first, 1 - middle + first), (first + 1, middle - first)):
                weights[place, min(max(source, 0), old - 1)] += weight
    return weights


def coverage_by_value(label: np.ndarray, size: tuple[int, int]) -> dict[int, np.ndarray]:
    row_weights, column_weights = (axis_weights(old, new) for old, new in zip(label.shape, size, strict=True))
    return {int(value): row_weights @ (label == value) @ column_weights.T for value in np.unique(label)}


@pytest.mark.parametrize("size", [(17, 23), (40, 41), (80, 90), (25, 90), (80, 9), (40, 23), (1, 1), (3, 200)])
@pytest.mark.parametrize("kind", ["noise", "blocks", "lines"])
def test_resize_label_equals_reference(kind: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_maps, "_CHUNK_PIXELS", 200)  # many parts
    rng = np.random.default_rng(0)
    label = rng.choice(np.array([0, 1, 2, 7, 255], np.uint8), (41, 47))
    if kind == "blocks":
        label = np.kron(label[:6, :6], np.ones((7, 8), np.uint8))[:41, :47].copy()
    elif kind == "lines":
        label = np.where(np.indices((41, 47)).sum(0) % 9 == 0, 3, 0).astype(np.uint8)
    resized = resize_label(label, size)
    coverage = coverage_by_value(label, size)
    background = coverage.pop(0, np.zeros(size))
    assert resized.shape == size and resized.dtype == np.uint8
    for place in np.ndindex(size):
        if abs(1 - background[place] - 0.45) < 1e-5:
            continue  # rounding decides
        if 1 - background[place] < 0.45:
            assert resized[place] == 0, place
        else:
            largest = max(values[place] for values in coverage.values())
            assert resized[place] and coverage[int(resized[place])][place] >= largest - 1e-5, place


def test_equal_coverage_gives_the_lowest_value() -> None:
    assert resize_label(np.array([[9, 4], [4, 9]], np.uint8), (1, 1)) == 4
    assert resize_label(np.array([[9, 4], [4, 0]], np.uint8), (1, 1)) == 4


def test_same_size_and_single_value() -> None:
    label = np.random.default_rng(1).integers(0, 3, (9, 8), np.uint8)
    assert np.array_equal(resize_label(label, (9, 8)), label)
    assert np.array_equal(resize_label(np.full((9, 8), 5, np.uint8), (4, 20)), np.full((4, 20), 5, np.uint8))
