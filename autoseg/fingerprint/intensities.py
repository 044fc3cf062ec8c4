"""Mean, deviation and percentiles of a channel over a whole set, in memory that does not grow with its images."""

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
_SKETCH = 1000  # quantiles kept of each floating-point image: 0.1 % steps, finer than the percentiles asked for
_WAITING = 65536  # quantiles of images that are held as they are: those of 65 images
_MERGED = 16384  # quantiles that stand for them, and for two such sets together
_Floats = npt.NDArray[np.float64]
_Quantiles = tuple[npt.NDArray[np.float32], float]  # values, and the pixels that each stands for
_NONE = np.zeros(0)


@dataclass(kw_only=True)
class ChannelHistogram:
    """One channel of one image. counts: how many pixels hold each level from 0 to the highest one, in the smallest type that
    does; for floats, how many each of `values` stands for, quantiles of equal shares. total, squares: sums over the pixels.
    low, high: the smallest and the largest value; not-a-number without pixels."""

    values: _Floats
    counts: Array
    pixels: float
    total: float
    squares: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def mean(self) -> float:
        """Not-a-number where there are no pixels."""
        return self.total / self.pixels if self.pixels else float("nan")


def count(plane: Array, mask: Array | None = None) -> ChannelHistogram:
    """plane: (H, W) uint8, uint16 or float32. mask: (H, W) uint8, non-zero where pixels count."""
    if plane.dtype in (np.uint8, np.uint16):
        low, high, place, _ = cv2.minMaxLoc(plane, mask)
        if place[0] < 0:
            return ChannelHistogram(values=_NONE, counts=_NONE, pixels=0.0, total=0.0, squares=0.0)
        levels = int(high) + 1
        counts = cv2.calcHist([plane], [0], mask, [levels], [0, levels]).ravel().astype(np.float64)
        values, squares = (table[:levels] for table in _tables())
        return ChannelHistogram(
            values=_NONE,
            # The smallest type: it may go from one process to another.
            counts=counts.astype(np.min_scalar_type(int(counts.max()))),
            pixels=float(counts.sum()),
            total=float(values @ counts),
            squares=float(squares @ counts),
            low=low,
            high=high,
        )
    chosen = (plane if mask is None else plane[mask > 0]).astype(np.float64).ravel()
    kept = min(_SKETCH, chosen.size)
    places = ((np.arange(kept) + 0.5) / max(kept, 1) * chosen.size).astype(np.int64)
    ordered = np.sort(chosen)
    shares = np.full(kept, chosen.size / max(kept, 1))
    low, high = _ends(ordered)
    return ChannelHistogram(
        values=ordered[places],
        counts=shares,
        # Not by the BLAS, whose last digit depends on its number of threads.
        pixels=float(shares.sum()),
        total=float(chosen.sum()),
        squares=float(np.square(chosen).sum()),
        low=low,
        high=high,
    )


def _ends(ordered: Array) -> tuple[float, float]:
    return (float(ordered[0]), float(ordered[-1])) if ordered.size else (float("nan"), float("nan"))


@cache
def _tables() -> tuple[_Floats, _Floats]:
    """The levels from 0 on, and their squares."""
    values = np.arange(_LEVELS, dtype=np.float64)
    return values, values**2


@dataclass(kw_only=True)
class QuantileSketch:
    """The sum of many `ChannelHistogram`. Whole values have exact counts; floats are pooled as quantiles of each image.

    Quantiles of 65 images are held, then merged into 16,384 of one weight, and of those sets two of one size again into one.
    Each merging moves a percentile by 1/32,768 of the pixels at most, and an image goes through one and another for each
    doubling: 0.03 % of the pixels after 10,000 images, 0.05 % after a million, beside the 0.05 % of each image's quantiles.
    """

    levels: _Floats = field(default_factory=lambda: np.zeros(_LEVELS))
    waiting: list[_Quantiles] = field(default_factory=list)
    merged: list[_Quantiles | None] = field(default_factory=list)  # of 1, 2, 4, ... times the images that may wait
    pixels: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, counted: ChannelHistogram, whole: bool) -> None:
        """whole: the values are uint8 or uint16 levels."""
        if whole:
            self.levels[: len(counted.counts)] += counted.counts
        elif counted.values.size:
            self.waiting.append((counted.values.astype(np.float32), float(counted.counts[0])))
            if sum(values.size for values, _ in self.waiting) >= _WAITING:
                self._merge()
        self.pixels += counted.pixels
        self.total += counted.total
        self.squares += counted.squares

    def summary(self) -> tuple[float, float, tuple[float, float, float]]:
        """Mean, deviation, percentiles 0.5, 50, 99.5. Zeros where there are no pixels."""
        if not self.pixels:
            return 0.0, 0.0, (0.0, 0.0, 0.0)
        mean = self.total / self.pixels
        deviation = float(np.sqrt(max(self.squares / self.pixels - mean**2, 0.0)))
        present = np.flatnonzero(self.levels)
        quantiles = [*self.waiting, *(one for one in self.merged if one is not None)]
        values, reached = _sorted(quantiles, present.astype(np.float64), self.levels[present])
        places = np.searchsorted(reached, np.array(PERCENTILES) / 100 * reached[-1])
        low, middle, high = (float(values[min(place, len(values) - 1)]) for place in places)
        return mean, deviation, (low, middle, high)

    def _merge(self) -> None:
        one, self.waiting = _merged(self.waiting), []
        for place, other in enumerate(self.merged):
            if other is None:
                self.merged[place] = one
                return
            one, self.merged[place] = _merged([other, one]), None
        self.merged.append(one)


def _merged(quantiles: Sequence[_Quantiles]) -> _Quantiles:
    """`_MERGED` quantiles of one weight in the place of these."""
    values, reached = _sorted(quantiles)
    share = float(reached[-1]) / _MERGED
    places = np.searchsorted(reached, (np.arange(_MERGED) + 0.5) * share)
    return values[np.minimum(places, len(values) - 1)].astype(np.float32), share


def _sorted(quantiles: Sequence[_Quantiles], values: _Floats = _NONE, weights: _Floats = _NONE) -> tuple[_Floats, _Floats]:
    """Values in order, and the pixels up to each of them; of quantiles and of values that have a weight each."""
    every = np.concatenate([values, *(found for found, _ in quantiles)])
    shares = np.concatenate([weights, *(np.full(len(found), share) for found, share in quantiles)])
    order = np.argsort(every, kind="stable")
    return every[order], np.cumsum(shares[order])
