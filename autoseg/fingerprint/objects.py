"""Size, thickness and compactness of the objects of a mask."""

from __future__ import annotations

import cv2
import numpy as np

from autoseg.io.types import Array
from autoseg.schema.fingerprint import ClassInCase

_MAX_SEPARATE_OBJECTS = 16  # up to this many objects are measured separately, each in its bounding box, which is faster
SPECK = 4  # pixels: smaller than any object outlined by hand
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_ABSENT = ClassInCase(pixels=0, objects=0, largest=0, thickness=0.0)


def measure_class(mask: Array) -> tuple[ClassInCase, Array]:
    """mask: (H, W) bool or uint8, non-zero inside the class. Second: the areas of its objects in pixels."""
    mask = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return _ABSENT, np.zeros(0, np.int32)
    # Padding with zeros makes the image border an object border, so that a full mask has a finite thickness.
    framed = cv2.copyMakeBorder(mask[top : top + height, left : left + width], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    # 16-bit labels take half the time. There are at most as many labels as blocks of 2 x 2 pixels.
    label_type = cv2.CV_16U if framed.size < 2**17 else cv2.CV_32S
    count, components, stats, _ = cv2.connectedComponentsWithStats(framed, connectivity=8, ltype=label_type)
    areas = stats[1:, cv2.CC_STAT_AREA]
    measured = ClassInCase(
        pixels=int(areas.sum()),
        objects=count - 1,
        largest=int(areas.max()),
        thickness=_thickness(components, stats),
        object_area=float(np.median(areas)),
        compactness=_compactness(framed, components, areas),
    )
    return measured, areas


def _compactness(framed: Array, components: Array, areas: Array) -> float:
    """4 pi area / perimeter^2 of each object, with the edges of holes, weighted by area; at most 1."""
    contours, hierarchy = cv2.findContours(framed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    perimeters = np.zeros(len(areas))
    for contour, (*_, parent) in zip(contours, hierarchy[0], strict=True):
        column, row = contour[0, 0]
        # A contour connects pixel centres. The edge is half a pixel outside; for a hole, half a pixel inside.
        edge = cv2.arcLength(contour, True) + (np.pi if parent < 0 else -np.pi)
        perimeters[components[row, column] - 1] += max(edge, 0.0)
    quotients = np.minimum(4 * np.pi * areas / perimeters**2, 1.0)
    return float(np.average(quotients, weights=areas))


def _thickness(components: Array, stats: Array) -> float:
    """Twice the median of the distance transform along the ridge; each object is weighted by its area.

    components, stats: of the padded mask. Without weights, a few stray pixels would count more than the short ridge of a large
    round object.
    """
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) > _MAX_SEPARATE_OBJECTS:
        squares, ridge = _ridge((components > 0).view(np.uint8))
        object_ids = components[ridge] - 1
        weights = areas[object_ids] / np.bincount(object_ids, minlength=len(areas))[object_ids]
    else:
        # The background between two objects is nearer than the other object, so each can be measured separately.
        ridges = [_ridge(_object_mask(components, stats, label)) for label in range(1, len(stats))]
        squares = np.concatenate([depths for depths, _ in ridges])
        lengths = np.array([len(depths) for depths, _ in ridges])
        weights = np.repeat(areas / lengths, lengths)
    order = np.argsort(squares)
    cumulative = np.cumsum(weights[order])
    return float(2 * np.sqrt(squares[order][np.searchsorted(cumulative, cumulative[-1] / 2)]))


def _object_mask(components: Array, stats: Array, label: int) -> Array:
    """One object in its bounding box, padded with zeros: (h, w) uint8."""
    left, top, width, height = stats[label, : cv2.CC_STAT_AREA]
    box = components[top - 1 : top + height + 1, left - 1 : left + width + 1]
    return np.asarray(box == label).view(np.uint8)


def _ridge(mask: Array) -> tuple[Array, Array]:
    """Squared distances of the ridge pixels (no neighbour is deeper), and the ridge: (H, W) bool.

    mask: (H, W) uint8, padded.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The last bit depends on the memory alignment of OpenCV's output, and could order two equal pixels. Squared distances
    # between pixels are integers.
    squares = np.multiply(distance, distance, out=distance)
    np.rint(squares, out=squares)
    ridge = squares >= cv2.dilate(squares, _NEIGHBOURS)
    ridge &= mask.view(np.bool_)
    return squares[ridge], ridge
