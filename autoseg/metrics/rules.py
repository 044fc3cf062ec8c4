"""Definitions of all metrics, and the rule for undefined values. Reports quote these sentences.

A metric is a `Metric`, looked up by name (`METRICS`, entry points "autoseg.metrics"). autoseg computes its own metrics together
(`overlap`, `surface`, `skeleton`). One of another package has a function `compute(prediction, reference, spacing) -> float`.
prediction, reference: (H, W) bool, one class of one case at its original size, rows first; ignored pixels are False in both.
spacing: (row, column) in mm, or (1.0, 1.0) if distances are in pixels. It returns not-a-number if undefined. It is called for
each class of each case, in several processes, but not if both masks of the class are empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNDEFINED = math.nan

# Quotients of pixel counts. They can also be computed from counts summed over a set.
OVERLAP = ("dice", "iou", "precision", "recall")
# Of counts of objects, which can be summed as well.
OBJECTS = ("object_sensitivity", "object_precision", "object_f1")
# Metrics of the masks' shapes, for single images only. The first four are distances: lower is better.
SHAPE = ("hd95", "hd95_diagonal", "hd95_pooled", "asd", "nsd", "boundary_iou", "cldice")
# Of one image: errors of its area, and the quality of its objects.
AREA = ("area_error", "area_bias")
PER_IMAGE = (*OVERLAP, *SHAPE, *AREA, *OBJECTS, "panoptic_quality")

DEFINITIONS = {
    "dice": "2 TP / (2 TP + FP + FN), from pixel counts",
    "iou": "TP / (TP + FP + FN), from pixel counts",
    "precision": "TP / (TP + FP), from pixel counts",
    "recall": "TP / (TP + FN), from pixel counts",
    "hd95": (
        "the greater of the two directed 95th percentiles (linear between ranks) of the distances from each border pixel of "
        "one mask to the nearest border pixel of the other; border pixels are those with a 4-neighbour outside the mask, "
        "pixels at the image's edge among them"
    ),
    "hd95_diagonal": (
        "hd95, with the length of the image's diagonal if the class is in one of the two masks only, so that a model which "
        "misses or invents objects is not flattered by what is left out"
    ),
    "hd95_pooled": (
        "the 95th percentile of both directions' distances together, as medpy computes it; given next to hd95 to compare with "
        "papers that used it"
    ),
    "asd": "the mean of the distances of both masks' border pixels to the other border (average symmetric surface distance)",
    "nsd": ("normalised surface Dice: the fraction of both masks' border pixels within the tolerance of the other border"),
    "cldice": (
        "the harmonic mean of the fraction of the predicted skeleton inside the reference and of the reference's skeleton "
        "inside the prediction; of thin classes only, whose mean width in the references (twice the area over the border's "
        "length) is at most 2 % of the images' shorter side"
    ),
    "boundary_iou": (
        "the IoU of the bands inside both borders, as wide as a fiftieth of the image's diagonal; it tells of the border what "
        "IoU tells of the area"
    ),
    "area_error": "the difference between predicted and true area, divided by the true area, without its sign",
    "area_bias": "the same with its sign: above zero if too much is predicted; of a set, of the summed areas",
    "object_sensitivity": (
        "the fraction of the reference's objects that are found: connected parts (pixels that touch at a corner are connected) "
        "with an IoU above 0.5 with a predicted one"
    ),
    "object_precision": "the fraction of the predicted objects that have an IoU above 0.5 with one of the reference",
    "object_f1": "2 TP / (2 TP + FP + FN), from the numbers of found, invented and missed objects",
    "panoptic_quality": (
        "the sum of the IoU of found objects, divided by TP + FP / 2 + FN / 2 of objects: object F1 times the mean IoU of "
        "those found"
    ),
    "ece": (
        "expected calibration error: over 15 bins of the winning probability (of regions: of each output), the mean distance "
        "between it and the fraction of correct pixels, weighted by pixels; of all pixels of the set"
    ),
    "brier": (
        "the mean squared distance between the probabilities and the truth (half the sum over the classes; of regions: of each "
        "output), 0 to 1, lower is better"
    ),
    "near the foreground": (
        "ECE and Brier score of the reference's foreground and a band of a fiftieth of the image's diagonal around it: "
        "elsewhere every network is right and sure, which hides how it is where it matters"
    ),
    "pooled": "a metric of one class, of its counts summed over all cases, so that large objects weigh more",
    "micro": (
        "a metric of the counts summed over all cases and all foreground classes (the background is left out), so that large "
        "and frequent classes weigh more: mDSC, mIoU, mPrec and mRec of arXiv 2603.13044; with one class it is the class's own"
    ),
    "class_mean": (
        "the mean of the pooled metric over the foreground classes for which it is defined, so that all classes have the same "
        "weight"
    ),
    "per_image": (
        "the mean of a metric over the cases where it is defined, so that all images have the same weight; of all classes: the "
        "mean of that over the foreground classes for which it is defined"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """definition: one sentence for reports. lowest, highest: the range of its values. of_one_mask: whether a distance has a
    value if the class is in one mask only. compute: see the module's docstring; None for autoseg's own metrics, which are
    computed together."""

    definition: str
    higher_is_better: bool = True
    lowest: float = 0.0
    highest: float = 1.0
    of_one_mask: bool = False
    compute: Callable[[Any, Any, tuple[float, float]], float] | None = None

    @property
    def is_fraction(self) -> bool:
        """Whether its range is 0 to 1. Tables show such metrics in percent."""
        return (self.lowest, self.highest) == (0.0, 1.0)

    @property
    def correct_absence_value(self) -> float:
        """Value of a model that correctly predicts a class as absent where another model predicts it, see
        `comparison.paired_scores.PAIRING`. Undefined if the metric has no best value, or leaves such cases out."""
        if self.of_one_mask and not self.higher_is_better:
            return self.lowest
        return self.highest if self.higher_is_better and math.isfinite(self.highest) else UNDEFINED


def _distance(name: str) -> Metric:
    of_one_mask = name == "hd95_diagonal"
    return Metric(definition=DEFINITIONS[name], higher_is_better=False, highest=math.inf, of_one_mask=of_one_mask)


DICE, IOU, PRECISION, RECALL = (Metric(definition=DEFINITIONS[name]) for name in OVERLAP)
HD95, HD95_DIAGONAL, HD95_POOLED, ASD = (_distance(name) for name in SHAPE[:4])
NSD, BOUNDARY_IOU, CLDICE = (Metric(definition=DEFINITIONS[name]) for name in SHAPE[4:])
AREA_ERROR = Metric(definition=DEFINITIONS["area_error"], higher_is_better=False, highest=math.inf)
OBJECT_SENSITIVITY, OBJECT_PRECISION, OBJECT_F1 = (Metric(definition=DEFINITIONS[name]) for name in OBJECTS)
PANOPTIC_QUALITY = Metric(definition=DEFINITIONS["panoptic_quality"])

# An empty prediction for an empty reference is correct, but 0/0 is no score: with 1, the empty images of a set would
# outweigh the others. nnU-Net v2 and MONAI leave it out as well. Metrics Reloaded asks to report how many values are left
# out, because a model with empty predictions would otherwise hide its worst cases from the distances.
RULE = (
    "A metric whose denominator is zero is undefined: it is left out of means, and the number of undefined values "
    "is reported. If a class is in neither mask, all its metrics are undefined. If it is in one mask only, Dice, IoU, surface "
    "Dice, Boundary IoU, clDice, object F1 and panoptic quality are 0, and the distances are undefined because one border is "
    "missing, but for hd95_diagonal, which is the length of the image's diagonal then. Precision is undefined without "
    "predicted pixels, recall without reference pixels (the other one of the two is 0); the same holds for precision and "
    "sensitivity of objects. Errors of the area are undefined without reference pixels. Pixels with the ignore label in the "
    "reference are not counted."
)


def quotient(numerator: float, denominator: float) -> float:
    """numerator / denominator; undefined if the denominator is zero."""
    return numerator / denominator if denominator else UNDEFINED


def distance_is_defined(in_prediction: bool, in_reference: bool) -> bool:
    """Whether a distance between borders is defined: neither mask is empty."""
    return in_prediction and in_reference


def is_defined(value: float) -> bool:
    """Whether a metric has a value."""
    return not math.isnan(value)
