"""Objects found, missed and invented: the connected parts of two masks, matched by their overlap.

Kirillov et al.: Panoptic Segmentation. CVPR 2019. Two objects match if their IoU is above 0.5, so that none has two matches.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import quotient
from autoseg.metrics.surface import joint_window

Mask = NDArray[np.bool_]
_MATCH = 0.5


@dataclass(frozen=True)
class ObjectScore:
    """tp: matched objects, fp: predicted ones without a match, fn: those of the reference. iou: its sum over the matches."""

    tp: int
    fp: int
    fn: int
    iou: float = 0.0

    def __add__(self, other: ObjectScore) -> ObjectScore:
        return ObjectScore(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou + other.iou)

    @property
    def object_sensitivity(self) -> float:
        return quotient(self.tp, self.tp + self.fn)

    @property
    def object_precision(self) -> float:
        return quotient(self.tp, self.tp + self.fp)

    @property
    def object_f1(self) -> float:
        return quotient(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def panoptic_quality(self) -> float:
        return quotient(self.iou, self.tp + (self.fp + self.fn) / 2)


NO_OBJECTS = ObjectScore(0, 0, 0)


def object_score(prediction: Mask, reference: Mask) -> ObjectScore:
    """Matches of the objects of two masks (H, W). Pixels that touch at a corner are of one object.

    Raises ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    if not prediction.any() and not reference.any():
        return NO_OBJECTS
    window = joint_window(prediction, reference)
    predicted, areas = _objects(prediction[window])
    expected, expected_areas = _objects(reference[window])
    both = (predicted > 0) & (expected > 0)
    # One number for each pair of objects: a table of all pairs may not fit into memory.
    pairs, common = np.unique(expected[both].astype(np.int64) * len(areas) + predicted[both], return_counts=True)
    union = expected_areas[pairs // len(areas)] + areas[pairs % len(areas)] - common
    overlaps = common / union
    matched = overlaps[overlaps > _MATCH]
    found = len(matched)
    return ObjectScore(found, len(areas) - 1 - found, len(expected_areas) - 1 - found, float(matched.sum()))


def _objects(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number of each pixel's object (H, W), 0 outside, and the area in pixels of each number but 0."""
    count, numbers = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=8)
    # Of the objects' pixels only: counting takes eight bytes for each.
    return np.asarray(numbers, np.int32), np.bincount(numbers[mask], minlength=count)
