"""Mean, deviation and percentiles of a channel over a whole set, in memory that does not grow with its images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.io.contents import Array

PERCENTILES = (0.5, 50.0, 99.5)
_LEVELS = 65536
_SKETCH = 1000  # quantiles kept of each floating-point image: 0.1 % steps, finer than the percentiles asked for
_Floats = npt.NDArray[np.float64]


@dataclass
class Counted:
    """Values of one channel of one image: how many pixels hold each, of all levels from 0 on. For floats, quantiles that stand
    for equal shares."""

    values: _Floats
    counts: _Floats
    total: float
    squares: float

    @property
    def pixels(self) -> float:
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        """Not-a-number where there are no pixels."""
        return self.total / self.pixels if self.pixels else float("nan")


def count(plane: Array, mask: Array | None = None) -> Counted:
    """plane: (H, W) uint8, uint16 or float32. mask: (H, W) uint8, non-zero where pixels count."""
    if plane.dtype in (np.uint8, np.uint16):
        levels = 256 if plane.dtype == np.uint8 else _LEVELS
        counts = cv2.calcHist([plane], [0], mask, [levels], [0, levels]).ravel().astype(np.float64)
        values, squares = _levels(levels)
        return Counted(values, counts, float(values @ counts), float(squares @ counts))
    chosen = (plane if mask is None else plane[mask > 0]).astype(np.float64).ravel()
    kept = min(_SKETCH, chosen.size)
    places = ((np.arange(kept) + 0.5) / max(kept, 1) * chosen.size).astype(np.int64)
    values = np.sort(chosen)[places]
    shares = np.full(kept, chosen.size / max(kept, 1))
    return Counted(values, shares, float(chosen.sum()), float(chosen @ chosen))


@cache
def _levels(number: int) -> tuple[_Floats, _Floats]:
    """The levels from 0 on, and their squares."""
    values = np.arange(number, dtype=np.float64)
    return values, values**2


@dataclass
class Pool:
    """The sum of many `Counted`. Whole values have exact counts; floats are pooled as quantiles of each image."""

    levels: _Floats = field(default_factory=lambda: np.zeros(_LEVELS))
    quantiles: list[tuple[npt.NDArray[np.float32], float]] = field(default_factory=list)
    pixels: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, counted: Counted, whole: bool) -> None:
        """whole: the values are uint8 or uint16 levels."""
        if whole:
            self.levels[: len(counted.counts)] += counted.counts
        elif counted.values.size:
            self.quantiles.append((counted.values.astype(np.float32), float(counted.counts[0])))
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
        values = np.concatenate([present.astype(np.float64), *(quantiles for quantiles, _ in self.quantiles)])
        weights = np.concatenate([self.levels[present], *(np.full(len(q), share) for q, share in self.quantiles)])
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(weights[order])
        places = np.searchsorted(reached, np.array(PERCENTILES) / 100 * reached[-1])
        low, middle, high = (float(values[order][min(place, len(values) - 1)]) for place in places)
        return mean, deviation, (low, middle, high)
