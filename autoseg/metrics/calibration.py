"""Calibration of probabilities: confidence and accuracy in bins (expected calibration error), and the Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import UNDEFINED
from autoseg.metrics.surface import band_width

BINS = 15
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Sums over pixels for each of `BINS` equal bins of confidence, (BINS,) each.

    pixels: their number. confidence: sum of their confidence. right: number of correct ones. squared: sum of squared errors
    over all pixels.
    """

    pixels: Sums
    confidence: Sums
    right: Sums
    squared: float = 0.0

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.pixels + other.pixels, self.confidence + other.confidence, self.right + other.right,
            self.squared + other.squared,
        )  # fmt: skip

    @property
    def brier(self) -> float:
        """Brier score, 0 to 1; undefined without pixels."""
        total = float(self.pixels.sum())
        return self.squared / total if total else UNDEFINED

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
    # Ignored pixels may have a label that is no class.
    index = np.minimum(reference, len(probabilities) - 1)[None].astype(np.intp)
    of_truth = np.take_along_axis(probabilities, index, axis=0)[0].astype(np.float64)
    # Sum over the classes of (p - y)^2, halved: with two classes it is the (p - y)^2 of either.
    squared = ((probabilities.astype(np.float64) ** 2).sum(axis=0) - 2 * of_truth + 1) / 2
    return _reliability(confidence, winner == reference, squared, ignore)


def reliability_of_region(
    probability: NDArray[np.floating[Any]], member: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None
) -> Reliability:
    """Reliability of one sigmoid map (H, W), against the mask (H, W) of its region."""
    return _reliability(probability, member, (probability.astype(np.float64) - member) ** 2, ignore)


def far_from(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) further from the foreground than a fiftieth of the image's diagonal, in rows or columns: what a network
    knows to be background without effort.
    """
    width = band_width(foreground.shape)
    near = cv2.dilate(foreground.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=width)
    return np.asarray(near == 0)


def _reliability(
    confidence: NDArray[np.floating[Any]],
    right: NDArray[np.bool_],
    squared: NDArray[np.float64],
    ignore: NDArray[np.bool_] | None,
) -> Reliability:
    if ignore is not None:
        confidence, right, squared = confidence[~ignore], right[~ignore], squared[~ignore]
    values = confidence.astype(np.float64).ravel()
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    weights: tuple[Sums | None, ...] = (None, values, right.ravel().astype(np.float64))
    pixels, summed, correct = (np.bincount(bins, weight, minlength=BINS).astype(np.float64) for weight in weights)
    return Reliability(pixels, summed, correct, float(squared.sum()))
