"""Crop, mirroring, rotation, scaling and elastic deformation in one resampling of the stored image. Pixels that move into the
window from outside come from the image, and nothing is interpolated twice.

Image and labels are reflected at the image's edges, as prediction pads images smaller than a tile.
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
# Extra pixels around the source region, so that interpolation does not reach its edge.
_MARGIN = 2
# Elastic deformation: points per side, and standard deviation of their displacements as a fraction of the shorter side.
_ELASTIC_POINTS = 6
_ELASTIC_DEVIATION = 0.02
# Maximum number of channels for the geometric functions of some OpenCV releases.
_MAX_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """mirrored: (rows, columns). angle: degrees. zoom: above 1 enlarges. elastic: (points, points, 2) or None: displacements
    (x, y) as fractions of the window's shorter side. shear: degrees, along the columns. shift: (rows, columns) as fractions of
    the window's sides, down and to the right."""

    mirrored: tuple[bool, bool] = (False, False)
    angle: float = 0.0
    zoom: float = 1.0
    elastic: Array | None = None
    shear: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def is_integer_shift(self) -> bool:
        """Crop and flip only: no interpolation is needed."""
        moved = self.shear != 0.0 or self.shift != (0.0, 0.0)
        return self.angle == 0.0 and self.zoom == 1.0 and self.elastic is None and not moved


def draw_geometry(settings: Augmentation, random: np.random.Generator) -> Geometry:
    """A random geometry with the probabilities and ranges of `settings`. See `around_one` for the zoom."""
    mirrored = (0 in settings.mirror and random.random() < 0.5, 1 in settings.mirror and random.random() < 0.5)
    angle, zoom, elastic = 0.0, 1.0, None
    if random.random() < settings.p_rotation:
        angle = random.uniform(-settings.rotation, settings.rotation)
    if random.random() < settings.p_scaling:
        zoom = around_one(settings.scaling, random)
    if random.random() < settings.p_elastic:
        elastic = random.normal(0.0, _ELASTIC_DEVIATION, (_ELASTIC_POINTS, _ELASTIC_POINTS, 2)).astype(np.float32)
    # Drawn only if asked for, so that runs without them keep their random numbers.
    shear, shift = 0.0, (0.0, 0.0)
    if settings.p_shear and random.random() < settings.p_shear:
        shear = random.uniform(-settings.shear, settings.shear)
    if settings.p_shift and random.random() < settings.p_shift:
        shift = (random.uniform(-settings.shift, settings.shift), random.uniform(-settings.shift, settings.shift))
    return Geometry(mirrored=mirrored, angle=angle, zoom=zoom, elastic=elastic, shear=shear, shift=shift)


def around_one(limits: tuple[float, float], random: np.random.Generator) -> float:
    """A random factor within `limits`; if they contain 1, half of the factors are below 1 and half above."""
    low, high = limits
    if low < 1 < high:
        return random.uniform(low, 1.0) if random.random() < 0.5 else random.uniform(1.0, high)
    return random.uniform(low, high)


def warp_crop(
    image: Array, label: Array, corner: tuple[int, int], size: tuple[int, int], geometry: Geometry
) -> tuple[Array, Array]:
    """The window of `size` (height, width) at `corner` (row, column; may be negative), transformed around its centre.

    image: (H, W, C) uint8, uint16 or float32, interpolated linearly. label: (H, W) uint8, nearest neighbour. Returns contiguous
    copies (h, w, C) and (h, w).
    """
    if geometry.is_integer_shift:
        cropped = _flip(_crop(image, corner, size), geometry), _flip(_crop(label, corner, size), geometry)
        return np.ascontiguousarray(cropped[0]).reshape(*size, image.shape[2]), np.ascontiguousarray(cropped[1])
    matrix = _matrix(corner, size, geometry)
    if geometry.elastic is None:
        (top, bottom), (left, right) = _source_region(matrix, size, 0.0, label.shape)
        matrix = matrix - np.array([[0, 0, left], [0, 0, top]])
        grid = _SamplingGrid(size, matrix, None)
    else:
        shift = cv2.resize(geometry.elastic, size[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(min(size))
        (top, bottom), (left, right) = _source_region(matrix, size, float(np.abs(shift).max()), label.shape)
        matrix = matrix - np.array([[0, 0, left], [0, 0, top]])
        grid = _SamplingGrid(size, matrix, _coordinate_map(matrix, size, shift))
    pixels = in_channel_groups(lambda part: grid.sample(part, cv2.INTER_LINEAR), image[top:bottom, left:right])
    return pixels, grid.sample(label[top:bottom, left:right], cv2.INTER_NEAREST)


def in_channel_groups(function: Callable[[Array], Array], image: Array) -> Array:
    """Applies `function`, which takes (H, W, up to 4 channels), to an image (H, W, C): (h, w, C)."""
    channels = image.shape[2]
    if channels <= _MAX_CHANNELS:
        result = function(image)
        return result if result.ndim == 3 else result[..., None]
    groups = [np.ascontiguousarray(image[..., start : start + _MAX_CHANNELS]) for start in range(0, channels, _MAX_CHANNELS)]
    results = [function(group) for group in groups]
    return np.concatenate([result if result.ndim == 3 else result[..., None] for result in results], axis=2)


@dataclass(frozen=True)
class _SamplingGrid:
    """Source position of each pixel of the window: an affine matrix, or a map (h, w, 2) of (x, y)."""

    size: tuple[int, int]
    matrix: Array
    map: Array | None

    def sample(self, source: Array, interpolation: int) -> Array:
        if self.map is not None:
            xs, ys = self.map[..., 0], self.map[..., 1]
            return np.asarray(cv2.remap(source, xs, ys, interpolation, borderMode=_BORDER))
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(source, self.matrix, self.size[::-1], flags=flags, borderMode=_BORDER))


def _matrix(corner: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> Array:
    """2x3 matrix from (x, y) in the window to (x, y) in the image."""
    angle = math.radians(geometry.angle)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / geometry.zoom
    sheared = np.array([[1.0, math.tan(math.radians(geometry.shear))], [0.0, 1.0]])
    linear = sheared @ rotation @ np.diag([-1.0 if geometry.mirrored[1] else 1.0, -1.0 if geometry.mirrored[0] else 1.0])
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    shift = np.array([geometry.shift[1] * size[1], geometry.shift[0] * size[0]])
    offset = centre + np.array([corner[1], corner[0]]) - linear @ (centre + shift)
    return np.concatenate([linear, offset[:, None]], axis=1)


def _coordinate_map(matrix: Array, size: tuple[int, int], shift: Array) -> Array:
    xs, ys = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    linear = matrix.astype(np.float32)
    coordinates = [linear[axis, 0] * xs + linear[axis, 1] * ys + linear[axis, 2] for axis in (0, 1)]
    return np.stack(coordinates, axis=2) + shift


def _source_region(
    matrix: Array, size: tuple[int, int], margin: float, shape: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows (first, end) and columns (first, end) of the image that the window needs, including reflected ones.

    OpenCV cannot process images with sides above 32767 pixels; this region is small.
    """
    height, width = size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], np.float64)
    points = corners @ matrix.T
    low = np.floor(points.min(axis=0) - margin).astype(int) - _MARGIN
    high = np.ceil(points.max(axis=0) + margin).astype(int) + _MARGIN
    return _source_range(int(low[1]), int(high[1]), shape[0]), _source_range(int(low[0]), int(high[0]), shape[1])


def _source_range(low: int, high: int, length: int) -> tuple[int, int]:
    first, end = max(low, 0), min(high + 1, length)
    if low < 0:
        end = max(end, min(length, 1 - low))
    if high >= length:
        first = min(first, max(0, 2 * (length - 1) - high))
    return first, max(end, first + 1)


def _crop(array: Array, corner: tuple[int, int], size: tuple[int, int]) -> Array:
    """A view of the window, or a reflect-padded copy if it reaches beyond the image."""
    (top, left), (height, width) = corner, size
    pad_before = (max(0, -top), max(0, -left))
    pad_after = (max(0, top + height - array.shape[0]), max(0, left + width - array.shape[1]))
    if not any(pad_before + pad_after):
        return array[top : top + height, left : left + width]
    rows, columns = _source_range(top, top + height - 1, array.shape[0]), _source_range(left, left + width - 1, array.shape[1])
    source = array[rows[0] : rows[1], columns[0] : columns[1]]
    padding = [(pad_before[0], pad_after[0]), (pad_before[1], pad_after[1]), (0, 0)][: array.ndim]
    padded = np.pad(source, padding, mode="reflect")
    # Remove the rows and columns that were needed for the reflection only.
    first = (max(0, top) - rows[0], max(0, left) - columns[0])
    return padded[first[0] : first[0] + height, first[1] : first[1] + width]


def _flip(array: Array, geometry: Geometry) -> Array:
    rows, columns = geometry.mirrored
    if not rows and not columns:
        return array
    return cv2.flip(np.asarray(array), -1 if rows and columns else 0 if rows else 1)
