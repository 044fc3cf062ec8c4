"""One resampling for everything that moves pixels: crop, mirroring, rotation, scaling and elastic deformation together,
straight from the stored image, so that what turns into the window from outside it is real image and nothing is blurred twice.

Beyond the image's edge it is mirrored, image and labels alike, as prediction pads images smaller than a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.schema.plan import Augmentation

Array = NDArray[Any]

_BORDER = cv2.BORDER_REFLECT_101
# Pixels around the needed region that keep interpolation off the edge of the cut-out.
_MARGIN = 2
# Elastic deformation: random displacements on this many points a side, with this deviation as a share of the shorter side.
_ELASTIC_POINTS = 6
_ELASTIC_DEVIATION = 0.02
# OpenCV's geometric functions take at most this many channels at once in some releases.
_CHANNELS = 4


@dataclass(frozen=True)
class Geometry:
    """mirrored: (rows, columns). angle in degrees. zoom: above 1 things get larger. elastic: (points, points, 2) or None:
    displacements (x, y) as a share of the window's shorter side."""

    mirrored: tuple[bool, bool] = (False, False)
    angle: float = 0.0
    zoom: float = 1.0
    elastic: Array | None = None

    @property
    def is_integer_shift(self) -> bool:
        """No pixel falls between others: a crop and a flip do."""
        return self.angle == 0.0 and self.zoom == 1.0 and self.elastic is None


def draw_geometry(settings: Augmentation, random: np.random.Generator) -> Geometry:
    """A geometry by the chances and ranges of `settings`. Half of the zooms shrink, where the range allows both."""
    mirrored = (0 in settings.mirror and random.random() < 0.5, 1 in settings.mirror and random.random() < 0.5)
    angle, zoom, elastic = 0.0, 1.0, None
    if random.random() < settings.p_rotation:
        angle = random.uniform(-settings.rotation, settings.rotation)
    if random.random() < settings.p_scaling:
        zoom = around_one(settings.scaling, random)
    if random.random() < settings.p_elastic:
        elastic = random.normal(0.0, _ELASTIC_DEVIATION, (_ELASTIC_POINTS, _ELASTIC_POINTS, 2)).astype(np.float32)
    return Geometry(mirrored, angle, zoom, elastic)


def around_one(limits: tuple[float, float], random: np.random.Generator) -> float:
    """A factor within `limits`: half of the draws below 1 and half above, where both are allowed."""
    low, high = limits
    if low < 1 < high:
        return random.uniform(low, 1.0) if random.random() < 0.5 else random.uniform(1.0, high)
    return random.uniform(low, high)


def warp_crop(
    image: Array, label: Array, corner: tuple[int, int], size: tuple[int, int], geometry: Geometry
) -> tuple[Array, Array]:
    """The window of `size` (height, width) at `corner` (row, column; may be negative) of an image, deformed about its centre.

    image: (H, W, C) uint8, uint16 or float32, interpolated linearly. label: (H, W) uint8, nearest. Returns contiguous
    copies (h, w, C) and (h, w).
    """
    if geometry.is_integer_shift:
        moved = _flipped(_cropped(image, corner, size), geometry), _flipped(_cropped(label, corner, size), geometry)
        return np.ascontiguousarray(moved[0]).reshape(*size, image.shape[2]), np.ascontiguousarray(moved[1])
    matrix = _matrix(corner, size, geometry)
    if geometry.elastic is None:
        (top, bottom), (left, right) = _region(matrix, size, 0.0, label.shape)
        matrix = matrix - np.array([[0, 0, left], [0, 0, top]])
        where = _SamplingGrid(size, matrix, None)
    else:
        shift = cv2.resize(geometry.elastic, size[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(min(size))
        (top, bottom), (left, right) = _region(matrix, size, float(np.abs(shift).max()), label.shape)
        matrix = matrix - np.array([[0, 0, left], [0, 0, top]])
        where = _SamplingGrid(size, matrix, _map(matrix, size, shift))
    pixels = in_groups(lambda part: where.take(part, cv2.INTER_LINEAR), image[top:bottom, left:right])
    return pixels, where.take(label[top:bottom, left:right], cv2.INTER_NEAREST)


def in_groups(function: Callable[[Array], Array], image: Array) -> Array:
    """`function` of (H, W, up to 4 channels) over an image (H, W, C), joined to (h, w, C)."""
    channels = image.shape[2]
    if channels <= _CHANNELS:
        made = function(image)
        return made if made.ndim == 3 else made[..., None]
    parts = [function(np.ascontiguousarray(image[..., at : at + _CHANNELS])) for at in range(0, channels, _CHANNELS)]
    return np.concatenate([part if part.ndim == 3 else part[..., None] for part in parts], axis=2)


@dataclass(frozen=True)
class _SamplingGrid:
    """Which source pixel each pixel of the window comes from: an affine matrix, or a map (h, w, 2) of (x, y)."""

    size: tuple[int, int]
    matrix: Array
    map: Array | None

    def take(self, source: Array, interpolation: int) -> Array:
        if self.map is not None:
            xs, ys = self.map[..., 0], self.map[..., 1]
            return np.asarray(cv2.remap(source, xs, ys, interpolation, borderMode=_BORDER))
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(source, self.matrix, self.size[::-1], flags=flags, borderMode=_BORDER))


def _matrix(corner: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> Array:
    """2x3 matrix from (x, y) in the window to (x, y) in the image."""
    angle = math.radians(geometry.angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / geometry.zoom
    linear = turn @ np.diag([-1.0 if geometry.mirrored[1] else 1.0, -1.0 if geometry.mirrored[0] else 1.0])
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    offset = middle + np.array([corner[1], corner[0]]) - linear @ middle
    return np.concatenate([linear, offset[:, None]], axis=1)


def _map(matrix: Array, size: tuple[int, int], shift: Array) -> Array:
    xs, ys = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    linear = matrix.astype(np.float32)
    placed = [linear[axis, 0] * xs + linear[axis, 1] * ys + linear[axis, 2] for axis in (0, 1)]
    return np.stack(placed, axis=2) + shift


def _region(
    matrix: Array, size: tuple[int, int], reach: float, shape: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows (first, end) and columns (first, end) of the image that the window needs, those mirrored into it included.

    OpenCV cannot address images of more than 32767 pixels a side, and need not: the window is small.
    """
    height, width = size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], np.float64)
    points = corners @ matrix.T
    low = np.floor(points.min(axis=0) - reach).astype(int) - _MARGIN
    high = np.ceil(points.max(axis=0) + reach).astype(int) + _MARGIN
    return _needed(int(low[1]), int(high[1]), shape[0]), _needed(int(low[0]), int(high[0]), shape[1])


def _needed(low: int, high: int, length: int) -> tuple[int, int]:
    first, end = max(low, 0), min(high + 1, length)
    if low < 0:
        end = max(end, min(length, 1 - low))
    if high >= length:
        first = min(first, max(0, 2 * (length - 1) - high))
    return first, max(end, first + 1)


def _cropped(array: Array, corner: tuple[int, int], size: tuple[int, int]) -> Array:
    """A view of the window, or a padded copy where it reaches over the edge."""
    (top, left), (height, width) = corner, size
    before = (max(0, -top), max(0, -left))
    after = (max(0, top + height - array.shape[0]), max(0, left + width - array.shape[1]))
    if not any(before + after):
        return array[top : top + height, left : left + width]
    rows, columns = _needed(top, top + height - 1, array.shape[0]), _needed(left, left + width - 1, array.shape[1])
    inside = array[rows[0] : rows[1], columns[0] : columns[1]]
    padding = [(before[0], after[0]), (before[1], after[1]), (0, 0)][: array.ndim]
    padded = np.pad(inside, padding, mode="reflect")
    # What was taken in only to be mirrored leaves again.
    first = (max(0, top) - rows[0], max(0, left) - columns[0])
    return padded[first[0] : first[0] + height, first[1] : first[1] + width]


def _flipped(array: Array, geometry: Geometry) -> Array:
    rows, columns = geometry.mirrored
    if not rows and not columns:
        return array
    return cv2.flip(np.asarray(array), -1 if rows and columns else 0 if rows else 1)
