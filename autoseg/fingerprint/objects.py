"""Size and thickness of what a mask marks."""

from __future__ import annotations

import cv2
import numpy as np

from autoseg.io.contents import Array
from autoseg.schema.fingerprint import ClassInCase

SPECK = 4  # pixels and less: below what anyone outlines by hand
_ABSENT = ClassInCase(0, 0, 0, 0.0)


def measure_class(mask: Array) -> tuple[ClassInCase, Array]:
    """mask: (H, W) bool or uint8, non-zero inside the class. Second: the areas of its objects in pixels."""
    mask = mask.astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return _ABSENT, np.zeros(0, np.int32)
    # The frame of zeros makes the edge of the image a border of the object, so that a full mask has a finite thickness.
    framed = cv2.copyMakeBorder(mask[top : top + height, left : left + width], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    number, components, stats, _ = cv2.connectedComponentsWithStats(framed, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return ClassInCase(int(areas.sum()), number - 1, int(areas.max()), _thickness(framed, components, areas)), areas


def _thickness(framed: Array, components: Array, areas: Array) -> float:
    """Twice the median of the distance transform along the ridge; each object weighs by its area.

    The ridge are the pixels no neighbour of which lies deeper. Without the weights, a few stray pixels would outnumber
    the short ridge of a large round object.
    """
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ridge = (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8))) & (framed > 0)
    depths, owners = distance[ridge], components[ridge] - 1
    weights = areas[owners] / np.bincount(owners, minlength=len(areas))[owners]
    order = np.argsort(depths)
    reached = np.cumsum(weights[order])
    return float(2 * depths[order][np.searchsorted(reached, reached[-1] / 2)])
