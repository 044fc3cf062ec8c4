"""Statistics from counts against numpy's on all the values."""

import numpy as np
import pytest

from autoseg.fingerprint import intensities
from autoseg.fingerprint.intensities import QuantileSketch, count

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("dtype", "high"), [("uint8", 256), ("uint16", 5000), ("float32", 1000)])
def test_pooled_statistics_are_those_of_all_pixels(dtype, high):
    planes = [(RNG.gamma(2, high / 12, (40 + 5 * i, 31)).clip(0, high - 1)).astype(dtype) for i in range(6)]
    if dtype == "float32":
        planes = [plane - 300 for plane in planes]
    pool = QuantileSketch()
    for plane in planes:
        pool.add(count(plane), dtype != "float32")
    every = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    mean, std, percentiles = pool.summary()
    assert mean == pytest.approx(every.mean(), rel=1e-6)
    assert std == pytest.approx(every.std(), rel=1e-6)
    exact = np.percentile(every, (0.5, 50, 99.5))
    assert np.abs(np.array(percentiles) - exact).max() <= 0.01 * high


def test_only_the_masked_pixels_count():
    for dtype in (np.uint8, np.uint16, np.float32):
        plane = np.arange(100, dtype=dtype).reshape(10, 10)
        mask = (plane >= 90).astype(np.uint8)
        counted = count(plane, mask)
        assert counted.pixels == 10 and counted.mean == pytest.approx(94.5)
        assert count(plane, np.zeros_like(mask)).pixels == 0


def test_an_empty_pool_has_zeros_and_mixed_kinds_add_up():
    pool = QuantileSketch()
    assert pool.summary() == (0.0, 0.0, (0.0, 0.0, 0.0))
    pool.add(count(np.full((10, 10), 2, np.uint8)), True)
    pool.add(count(np.full((10, 10), 4.0, np.float32)), False)
    mean, std, (low, _, high) = pool.summary()
    assert (mean, std, low, high) == (3.0, 1.0, 2.0, 4.0)


@pytest.mark.parametrize("order", ["mixed", "rising"])
def test_floats_of_many_images_stay_few_and_percentiles_true(order, monkeypatch):
    """Images that are alike, and images whose values rise from one to the next, so that each merging sees other ones."""
    monkeypatch.setattr(intensities, "_WAITING", 4096)
    monkeypatch.setattr(intensities, "_MERGED", 1024)
    rng, pool, every = np.random.default_rng(3), QuantileSketch(), []
    for number in range(1000):
        plane = rng.gamma(2, 100, (13, 20 + number % 9)).astype(np.float32)
        every.append(plane + np.float32(5 * number if order == "rising" else 0))
        pool.add(count(every[-1]), False)
        held = sum(values.size for values, _ in (*pool.waiting, *filter(None, pool.merged)))
        assert held < 4096 + 1024 * 8
    values = np.sort(np.concatenate([plane.ravel() for plane in every]))
    # One merging of those that wait, 6 doublings: 7 / 2048 of the pixels at most. All pixels of such small images are held.
    for found, wanted in zip(pool.summary()[2], (0.005, 0.5, 0.995), strict=True):
        low, high = (np.searchsorted(values, found, side) / values.size for side in ("left", "right"))
        assert low - 7 / 2048 <= wanted <= high + 7 / 2048
    assert pool.pixels == values.size


def test_memory_does_not_grow_with_the_pixels_of_an_image():
    assert count(RNG.random((900, 900)).astype(np.float32)).values.size <= 1000
