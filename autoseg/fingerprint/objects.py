"""Size, thickness and outline of what a mask marks."""

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
    found = ClassInCase(
        pixels=int(areas.sum()),
        objects=number - 1,
        largest=int(areas.max()),
        thickness=_thickness(framed, components, areas),
        object_area=float(np.median(areas)),
        compactness=_compactness(framed, components, areas),
    )
    return found, areas


def _compactness(framed: Array, components: Array, areas: Array) -> float:
    """4 pi area / perimeter^2 of each object, holes' edges included, weighted by area; at most 1."""
    contours, hierarchy = cv2.findContours(framed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    perimeters = np.zeros(len(areas))
    for contour, (*_, parent) in zip(contours, hierarchy[0], strict=True):
        column, row = contour[0, 0]
        # A contour runs through the middles of pixels; the edge lies half a pixel outside, in a hole half a pixel inside.
        edge = cv2.arcLength(contour, True) + (np.pi if parent < 0 else -np.pi)
        perimeters[components[row, column] - 1] += max(edge, 0.0)
    quotients = np.minimum(4 * np.pi * areas / perimeters**2, 1.0)
    return float(np.average(quotients, weights=areas))


def _thickness(framed: Array, components: Array, areas: Array) -> float:
    """Twice the median of the distance transform along the ridge; each object weighs by its area.

    The ridge are the pixels no neighbour of which lies deeper. Without the weights, a few stray pixels would outnumber
    the short ridge of a large round object.
    """
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The last bit depends on where OpenCV's output lies in memory, and with it which of two equal pixels is the deeper one.
    # Squares of distances between pixels are whole numbers.
    squares = np.rint(distance * distance)
    ridge = (squares >= cv2.dilate(squares, np.ones((3, 3), np.uint8))) & (framed > 0)
    depths, owners = np.sqrt(squares[ridge]), components[ridge] - 1
    weights = areas[owners] / np.bincount(owners, minlength=len(areas))[owners]
    order = np.argsort(depths)
    reached = np.cumsum(weights[order])
    return float(2 * depths[order][np.searchsorted(reached, reached[-1] / 2)])
