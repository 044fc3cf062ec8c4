"""Whether probabilities mean what they say: bins of confidence against the share that was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import UNDEFINED

BINS = 15
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Sums over pixels for each of `BINS` equal bins of confidence: how many, their confidence, how many were right."""

    pixels: Sums
    confidence: Sums
    right: Sums

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.pixels + other.pixels, self.confidence + other.confidence, self.right + other.right
        )

    @property
    def ece(self) -> float:
        """Expected calibration error; undefined without pixels."""
        total = float(self.pixels.sum())
        return float(np.abs(self.confidence - self.right).sum() / total) if total else UNDEFINED


EMPTY = Reliability(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS))


def reliability_of_classes(
    probabilities: NDArray[np.floating[Any]], reference: NDArray[np.integer[Any]], ignore: NDArray[np.bool_] | None = None
) -> Reliability:
    """Of the winning class of softmax maps (K, H, W) against a label map (H, W) whose value k is map k."""
    best, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
    return _binned(confidence, best == reference, ignore)


def reliability_of_region(
    probability: NDArray[np.floating[Any]], member: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None
) -> Reliability:
    """Of one sigmoid map (H, W): its probability of being inside against where the region is."""
    return _binned(probability, member, ignore)


def _binned(
    confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_], ignore: NDArray[np.bool_] | None
) -> Reliability:
    if ignore is not None:
        confidence, right = confidence[~ignore], right[~ignore]
    values = confidence.astype(np.float64).ravel()
    places = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    weights: tuple[Sums | None, ...] = (None, values, right.ravel().astype(np.float64))
    sums = [np.bincount(places, weight, minlength=BINS).astype(np.float64) for weight in weights]
    return Reliability(*sums)
