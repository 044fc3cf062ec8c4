"""Mean, deviation and percentiles of a channel over a dataset, in memory that does not grow with the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.io.types import Array

PERCENTILES = (0.5, 50.0, 99.5)
_LEVELS = 65536
_QUANTILES_PER_IMAGE = 1000  # of each float image: steps of 0.1 %, finer than PERCENTILES
_BUFFER_SIZE = 65536  # quantiles before a merge: those of 65 images
_MERGED_SIZE = 16384  # quantiles after a merge
_Floats = npt.NDArray[np.float64]
_Quantiles = tuple[npt.NDArray[np.float32], float]  # values, and how many pixels each represents
_NONE = np.zeros(0)


@dataclass(kw_only=True)
class ChannelHistogram:
    """One channel of one image. counts: pixels of each level from 0 to the highest, in the smallest integer type; for floats,
    pixels that each quantile in `values` represents. total, squares: sums over the pixels. low, high: smallest and largest
    value; NaN without pixels."""

    values: _Floats
    counts: Array
    pixels: float
    total: float
    squares: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def mean(self) -> float:
        """NaN without pixels."""
        return self.total / self.pixels if self.pixels else float("nan")


def compute_histogram(plane: Array, mask: Array | None = None) -> ChannelHistogram:
    """Histogram of a channel. plane: (H, W) uint8, uint16 or float32. mask: (H, W) uint8, non-zero for pixels to count."""
    if plane.dtype in (np.uint8, np.uint16):
        low, high, location, _ = cv2.minMaxLoc(plane, mask)
        if location[0] < 0:
            return ChannelHistogram(values=_NONE, counts=_NONE, pixels=0.0, total=0.0, squares=0.0)
        levels = int(high) + 1
        counts = cv2.calcHist([plane], [0], mask, [levels], [0, levels]).ravel().astype(np.float64)
        values, squares = (table[:levels] for table in _level_tables())
        return ChannelHistogram(
            values=_NONE,
            # The smallest type, because it may be sent to another process.
            counts=counts.astype(np.min_scalar_type(int(counts.max()))),
            pixels=float(counts.sum()),
            total=float(values @ counts),
            squares=float(squares @ counts),
            low=low,
            high=high,
        )
    selected = (plane if mask is None else plane[mask > 0]).astype(np.float64).ravel()
    number = min(_QUANTILES_PER_IMAGE, selected.size)
    indices = ((np.arange(number) + 0.5) / max(number, 1) * selected.size).astype(np.int64)
    ordered = np.sort(selected)
    weights = np.full(number, selected.size / max(number, 1))
    low, high = _min_max(ordered)
    return ChannelHistogram(
        values=ordered[indices],
        counts=weights,
        # Not with BLAS: its last digit depends on the number of threads.
        pixels=float(weights.sum()),
        total=float(selected.sum()),
        squares=float(np.square(selected).sum()),
        low=low,
        high=high,
    )


def _min_max(ordered: Array) -> tuple[float, float]:
    return (float(ordered[0]), float(ordered[-1])) if ordered.size else (float("nan"), float("nan"))


@cache
def _level_tables() -> tuple[_Floats, _Floats]:
    """All levels, and their squares."""
    values = np.arange(_LEVELS, dtype=np.float64)
    return values, values**2


@dataclass(kw_only=True)
class QuantileSketch:
    """Sum of many `ChannelHistogram`. Integer levels are counted exactly; floats are represented by quantiles of each image.

    The quantiles of 65 images are merged into 16,384 of equal weight. Two merged sets of the same size are merged again. Each
    merge moves a percentile by at most 1/32,768 of the pixels. The total error is 0.03 % of the pixels after 10,000 images and
    0.05 % after a million, plus 0.05 % for the quantiles of each image.
    """

    levels: _Floats = field(default_factory=lambda: np.zeros(_LEVELS))
    buffer: list[_Quantiles] = field(default_factory=list)
    merged: list[_Quantiles | None] = field(default_factory=list)  # sets of 1, 2, 4, ... times the images of one buffer
    pixels: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, histogram: ChannelHistogram, is_integer: bool) -> None:
        """is_integer: the values are uint8 or uint16 levels."""
        if is_integer:
            self.levels[: len(histogram.counts)] += histogram.counts
        elif histogram.values.size:
            self.buffer.append((histogram.values.astype(np.float32), float(histogram.counts[0])))
            if sum(values.size for values, _ in self.buffer) >= _BUFFER_SIZE:
                self._merge()
        self.pixels += histogram.pixels
        self.total += histogram.total
        self.squares += histogram.squares

    def summary(self) -> tuple[float, float, tuple[float, float, float]]:
        """Mean, deviation, percentiles 0.5, 50, 99.5. Zeros without pixels."""
        if not self.pixels:
            return 0.0, 0.0, (0.0, 0.0, 0.0)
        mean = self.total / self.pixels
        deviation = float(np.sqrt(max(self.squares / self.pixels - mean**2, 0.0)))
        occurring = np.flatnonzero(self.levels)
        quantiles = [*self.buffer, *(merged for merged in self.merged if merged is not None)]
        values, cumulative = _sort_with_cumulative_weights(quantiles, occurring.astype(np.float64), self.levels[occurring])
        indices = np.searchsorted(cumulative, np.array(PERCENTILES) / 100 * cumulative[-1])
        low, median, high = (float(values[min(level, len(values) - 1)]) for level in indices)
        return mean, deviation, (low, median, high)

    def _merge(self) -> None:
        quantiles, self.buffer = _merge_quantiles(self.buffer), []
        for level, other in enumerate(self.merged):
            if other is None:
                self.merged[level] = quantiles
                return
            quantiles, self.merged[level] = _merge_quantiles([other, quantiles]), None
        self.merged.append(quantiles)


def _merge_quantiles(quantiles: Sequence[_Quantiles]) -> _Quantiles:
    """`_MERGED_SIZE` quantiles of equal weight that represent the given ones."""
    values, cumulative = _sort_with_cumulative_weights(quantiles)
    weight = float(cumulative[-1]) / _MERGED_SIZE
    indices = np.searchsorted(cumulative, (np.arange(_MERGED_SIZE) + 0.5) * weight)
    return values[np.minimum(indices, len(values) - 1)].astype(np.float32), weight


def _sort_with_cumulative_weights(
    quantiles: Sequence[_Quantiles], values: _Floats = _NONE, weights: _Floats = _NONE
) -> tuple[_Floats, _Floats]:
    """All values in order, and their cumulative weights. values, weights: further values with their own weights."""
    all_values = np.concatenate([values, *(image_values for image_values, _ in quantiles)])
    weights = np.concatenate([weights, *(np.full(len(image_values), weight) for image_values, weight in quantiles)])
    order = np.argsort(all_values, kind="stable")
    return all_values[order], np.cumsum(weights[order])
