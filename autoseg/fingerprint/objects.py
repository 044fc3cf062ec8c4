"""Size, thickness and outline of what a mask marks."""

from __future__ import annotations

import cv2
import numpy as np

from autoseg.io.types import Array
from autoseg.schema.fingerprint import ClassInCase

_FEW = 16  # objects: measured in a box each, whose distances are found faster than those of all the space between
SPECK = 4  # pixels and less: below what anyone outlines by hand
_AROUND = np.ones((3, 3), np.uint8)
_ABSENT = ClassInCase(pixels=0, objects=0, largest=0, thickness=0.0)


def measure_class(mask: Array) -> tuple[ClassInCase, Array]:
    """mask: (H, W) bool or uint8, non-zero inside the class. Second: the areas of its objects in pixels."""
    mask = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return _ABSENT, np.zeros(0, np.int32)
    # The frame of zeros makes the edge of the image a border of the object, so that a full mask has a finite thickness.
    framed = cv2.copyMakeBorder(mask[top : top + height, left : left + width], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    # Labels of two bytes take half the time; there are no more of them than blocks of 2 x 2 pixels.
    kind = cv2.CV_16U if framed.size < 2**17 else cv2.CV_32S
    number, components, stats, _ = cv2.connectedComponentsWithStats(framed, connectivity=8, ltype=kind)
    areas = stats[1:, cv2.CC_STAT_AREA]
    found = ClassInCase(
        pixels=int(areas.sum()),
        objects=number - 1,
        largest=int(areas.max()),
        thickness=_thickness(components, stats),
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


def _thickness(components: Array, stats: Array) -> float:
    """Twice the median of the distance transform along the ridge; each object weighs by its area.

    components, stats: of the framed mask. Without the weights, a few stray pixels would outnumber the short ridge of a large
    round object.
    """
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) > _FEW:
        squares, ridge = _ridge((components > 0).view(np.uint8))
        owners = components[ridge] - 1
        weights = areas[owners] / np.bincount(owners, minlength=len(areas))[owners]
    else:
        # Between two objects lies background that is nearer than the other: each can be measured as if alone, in its own box.
        ridges = [_ridge(_alone(components, stats, place)) for place in range(1, len(stats))]
        squares = np.concatenate([found for found, _ in ridges])
        lengths = np.array([len(found) for found, _ in ridges])
        weights = np.repeat(areas / lengths, lengths)
    order = np.argsort(squares)
    reached = np.cumsum(weights[order])
    return float(2 * np.sqrt(squares[order][np.searchsorted(reached, reached[-1] / 2)]))


def _alone(components: Array, stats: Array, place: int) -> Array:
    """One object in its box with a frame of zeros: (h, w) uint8."""
    left, top, width, height = stats[place, : cv2.CC_STAT_AREA]
    box = components[top - 1 : top + height + 1, left - 1 : left + width + 1]
    return np.asarray(box == place).view(np.uint8)


def _ridge(mask: Array) -> tuple[Array, Array]:
    """Squared depths of the pixels no neighbour of which lies deeper, and where they are: (H, W) bool.

    mask: (H, W) uint8 within a frame.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The last bit depends on where OpenCV's output lies in memory, and with it which of two equal pixels is the deeper one.
    # Squares of distances between pixels are whole numbers.
    squares = np.multiply(distance, distance, out=distance)
    np.rint(squares, out=squares)
    ridge = squares >= cv2.dilate(squares, _AROUND)
    ridge &= mask.view(np.bool_)
    return squares[ridge], ridge
