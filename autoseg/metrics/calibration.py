"""Calibration of probabilities: confidence and accuracy in bins (expected calibration error)."""

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
    """Sums over pixels for each of `BINS` equal bins of confidence, (BINS,) each.

    pixels: their number. confidence: sum of their confidence. right: number of correct ones.
    """

    pixels: Sums
    confidence: Sums
    right: Sums

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.pixels + other.pixels, self.confidence + other.confidence, self.right + other.right)

    @property
    def ece(self) -> float:
        """Expected calibration error; undefined without pixels."""
        total = float(self.pixels.sum())
        return float(np.abs(self.confidence - self.right).sum() / total) if total else UNDEFINED


EMPTY = Reliability(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS))


def reliability_of_classes(
    probabilities: NDArray[np.floating[Any]], reference: NDArray[np.integer[Any]], ignore: NDArray[np.bool_] | None = None
) -> Reliability:
    """Reliability of the most probable class of softmax maps (K, H, W), against a label map (H, W) with values 0 to K - 1."""
    winner, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
    return _reliability(confidence, winner == reference, ignore)


def reliability_of_region(
    probability: NDArray[np.floating[Any]], member: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None
) -> Reliability:
    """Reliability of one sigmoid map (H, W), against the mask (H, W) of its region."""
    return _reliability(probability, member, ignore)


def _reliability(
    confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_], ignore: NDArray[np.bool_] | None
) -> Reliability:
    if ignore is not None:
        confidence, right = confidence[~ignore], right[~ignore]
    values = confidence.astype(np.float64).ravel()
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    weights: tuple[Sums | None, ...] = (None, values, right.ravel().astype(np.float64))
    sums = [np.bincount(bins, weight, minlength=BINS).astype(np.float64) for weight in weights]
    return Reliability(*sums)
