"""Statistics from histograms and quantiles against NumPy's on all values."""

import numpy as np
import pytest

from autoseg.fingerprint import intensities
from autoseg.fingerprint.intensities import QuantileSketch, compute_histogram

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("dtype", "high"), [("uint8", 256), ("uint16", 5000), ("float32", 1000)])
def test_statistics_equal_those_of_all_pixels(dtype, high):
    planes = [(RNG.gamma(2, high / 12, (40 + 5 * i, 31)).clip(0, high - 1)).astype(dtype) for i in range(6)]
    if dtype == "float32":
        planes = [plane - 300 for plane in planes]
    sketch = QuantileSketch()
    for plane in planes:
        sketch.add(compute_histogram(plane), dtype != "float32")
    all_values = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    mean, std, percentiles = sketch.summary()
    assert mean == pytest.approx(all_values.mean(), rel=1e-6)
    assert std == pytest.approx(all_values.std(), rel=1e-6)
    exact = np.percentile(all_values, (0.5, 50, 99.5))
    assert np.abs(np.array(percentiles) - exact).max() <= 0.01 * high


def test_only_masked_pixels_count():
    for dtype in (np.uint8, np.uint16, np.float32):
        plane = np.arange(100, dtype=dtype).reshape(10, 10)
        mask = (plane >= 90).astype(np.uint8)
        histogram = compute_histogram(plane, mask)
        assert histogram.pixels == 10 and histogram.mean == pytest.approx(94.5)
        assert compute_histogram(plane, np.zeros_like(mask)).pixels == 0


def test_empty_sketch_has_zeros_and_mixed_types_add_up():
    sketch = QuantileSketch()
    assert sketch.summary() == (0.0, 0.0, (0.0, 0.0, 0.0))
    sketch.add(compute_histogram(np.full((10, 10), 2, np.uint8)), True)
    sketch.add(compute_histogram(np.full((10, 10), 4.0, np.float32)), False)
    mean, std, (low, _, high) = sketch.summary()
    assert (mean, std, low, high) == (3.0, 1.0, 2.0, 4.0)


@pytest.mark.parametrize("order", ["mixed", "rising"])
def test_merged_quantiles_stay_few_and_accurate(order, monkeypatch):
    """Similar images, and images with rising values, so that each merge sees other values."""
    monkeypatch.setattr(intensities, "_BUFFER_SIZE", 4096)
    monkeypatch.setattr(intensities, "_MERGED_SIZE", 1024)
    rng, sketch, all_values = np.random.default_rng(3), QuantileSketch(), []
    for number in range(1000):
        plane = rng.gamma(2, 100, (13, 20 + number % 9)).astype(np.float32)
        all_values.append(plane + np.float32(5 * number if order == "rising" else 0))
        sketch.add(compute_histogram(all_values[-1]), False)
        stored = sum(values.size for values, _ in (*sketch.buffer, *filter(None, sketch.merged)))
        assert stored < 4096 + 1024 * 8
    values = np.sort(np.concatenate([plane.ravel() for plane in all_values]))
    # One merge of the buffer and 6 doublings: an error of at most 7 / 2048. Small images are stored exactly.
    for percentile, expected in zip(sketch.summary()[2], (0.005, 0.5, 0.995), strict=True):
        low, high = (np.searchsorted(values, percentile, side) / values.size for side in ("left", "right"))
        assert low - 7 / 2048 <= expected <= high + 7 / 2048
    assert sketch.pixels == values.size


def test_memory_does_not_grow_with_image_size():
    assert compute_histogram(RNG.random((900, 900)).astype(np.float32)).values.size <= 1000
