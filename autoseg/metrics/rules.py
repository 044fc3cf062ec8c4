"""The one place that says what a metric means and when it means nothing. Reports quote these sentences.

A metric is a `Metric`, looked up by name (`METRICS`, entry points "autoseg.metrics"). autoseg's own ones are measured together
(`overlap`, `surface`, `skeleton`); one of another package brings a function `compute(prediction, reference, spacing) -> float`.
prediction, reference: (H, W) bool, one class of one case at its original size, rows first; ignored pixels are False in both.
spacing: (row, column) in mm, or (1.0, 1.0) where distances are in pixels. It returns not-a-number where it is undefined. It is
called for each class of each case, in several processes, and not where the class is in neither mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNDEFINED = math.nan

# Metrics that are quotients of pixel counts, and so can be taken of counts summed over a set as well.
OVERLAP = ("dice", "iou", "precision", "recall")
# Metrics of the masks' shapes, which only a single image has. The first three are distances: less is better.
SHAPE = ("hd95", "hd95_pooled", "asd", "nsd", "cldice")

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
    "hd95_pooled": (
        "the 95th percentile of both directions' distances together, as medpy takes it; kept beside hd95 to compare with "
        "papers that used it"
    ),
    "asd": "the mean of the distances of both masks' border pixels to the other border (average symmetric surface distance)",
    "nsd": (
        "normalised surface Dice: the share of both masks' border pixels that lie within the tolerance of the other border"
    ),
    "cldice": (
        "the harmonic mean of the share of the predicted skeleton inside the reference and of the reference's skeleton inside "
        "the prediction; taken of thin classes only, whose mean width in the references (twice the area over the border's "
        "length) is at most 2 % of the images' shorter side"
    ),
    "ece": (
        "expected calibration error: over 15 bins of the winning probability (of regions: of each output), the mean distance "
        "between it and the share of pixels where it was right, weighed by pixels; of all pixels of the set"
    ),
    "pooled": "a metric of the counts summed over all cases, so that large objects weigh more",
    "per_image": "the mean of a metric over the cases where it is defined, so that every image weighs the same",
    "overall": "the mean over the foreground classes for which the number is defined; the background is left out",
}



@dataclass(frozen=True, kw_only=True)
class Metric:
    """definition: one sentence for reports. lowest, highest: the range of its values. compute: see the top; None for autoseg's
    own, which are measured together."""

    definition: str
    higher_is_better: bool = True
    lowest: float = 0.0
    highest: float = 1.0
    compute: Callable[[Any, Any, tuple[float, float]], float] | None = None

    @property
    def is_share(self) -> bool:
        """Whether it runs from 0 to 1 and is shown in percent."""
        return (self.lowest, self.highest) == (0.0, 1.0)

    @property
    def for_right_absence(self) -> float:
        """What a model counts with that rightly left out a class which another model found, see
        `comparison.values.PAIRING`; undefined where there is no best value to give, or it is a distance."""
        return self.highest if self.higher_is_better and math.isfinite(self.highest) else UNDEFINED


def _distance(name: str) -> Metric:
    return Metric(definition=DEFINITIONS[name], higher_is_better=False, highest=math.inf)


DICE, IOU, PRECISION, RECALL = (Metric(definition=DEFINITIONS[name]) for name in OVERLAP)
HD95, HD95_POOLED, ASD = (_distance(name) for name in SHAPE[:3])
NSD, CLDICE = (Metric(definition=DEFINITIONS[name]) for name in SHAPE[3:])

# An empty mask predicted for an empty reference is right, but 0/0 is no score: calling it 1 lets a set of mostly empty
# images outweigh the rest. nnU-Net v2 and MONAI leave it out as well; Metrics Reloaded asks that what is left out be
# counted and shown, since a model that finds nothing would otherwise hide its worst cases from the distances.
RULE = (
    "A metric whose denominator is zero is undefined: it is left out of means and counted beside them. So where a class is "
    "in neither mask, all its metrics are undefined; where it is in one mask only, Dice, IoU, surface Dice and clDice are 0, "
    "the distances are undefined since there is no border to measure to, precision is undefined without predicted pixels "
    "and recall without reference pixels (the other one of the two is 0). Pixels that carry the ignore label in the "
    "reference count nowhere."
)


def quotient(numerator: float, denominator: float) -> float:
    """numerator / denominator, undefined where the denominator is zero."""
    return numerator / denominator if denominator else UNDEFINED


def distance_is_defined(in_prediction: bool, in_reference: bool) -> bool:
    """Whether a distance between borders means anything: both masks have to hold something."""
    return in_prediction and in_reference


def is_defined(value: float) -> bool:
    """Whether a metric has a value."""
    return not math.isnan(value)
