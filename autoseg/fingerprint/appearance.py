"""Appearance of an image, independent of its content: dark background, constant borders, layers, text and markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import cv2
import numpy as np

from autoseg.io.types import Array

_BORDER_STEP = 8 / 255  # of the value range: black bars in a JPEG are not exactly constant
_DARK = 0.05  # of the value range above the lowest value
_MIN_DARK_FRACTION = 0.02  # of the image: overlays are searched only if there is this much dark background
_STROKE_WIDTH = 15  # pixels: upper limit for strokes of letters and markers
_BRIGHT, _MIN_BRIGHT_FRACTION = 0.5, 0.3  # of the value range; of a stroke's pixels
_MIN_AREA = 4  # pixels
_STRIP = 8  # rows
_VIVID, _PALE = 0.25, 0.02  # of the value range: difference between the channels of a coloured and of a gray pixel
_SAMPLES = 2**14  # pixels from which the quantile is estimated
_BRIGHT_QUANTILE = 0.995  # upper end of the brightness scale
_MAX_COLOUR_FRACTION = 0.05  # of the image: with more colour it is a colour image
Box = tuple[int, int, int, int]


def content_box(planes: list[Array], span: float) -> Box:
    """Top, bottom, left, right of the image without its constant border rows and columns; four zeros for a blank image.

    planes: (H, W) each. span: their `value_range`.
    """
    step = _BORDER_STEP * span
    width = planes[0].shape[1]
    top, bottom = _content_rows(planes, step)
    left, right = _content_rows([plane[top:bottom].T for plane in planes], step)
    if (left, right) != (0, width):
        # Rows again: without black bars at the sides, more rows may be constant.
        first, last = _content_rows([plane[top:bottom, left:right] for plane in planes], step)
        top, bottom = top + first, top + last
    return (top, bottom, left, right) if top < bottom and left < right else (0, 0, 0, 0)


def _content_rows(planes: list[Array], step: float) -> tuple[int, int]:
    """First row, and last row + 1, whose values differ by more than `step` in some channel."""
    rows = len(planes[0])
    constant_rows = _count_constant_rows(planes, step)
    if constant_rows == rows:
        return (0, 0)
    return (constant_rows, rows - _count_constant_rows([plane[::-1] for plane in planes], step))


def _count_constant_rows(planes: list[Array], step: float) -> int:
    """Number of constant rows at the top. Most images have none, so the first row is tested alone."""
    rows, columns = int(planes[0].shape[0]), int(planes[0].shape[1])
    if not rows or not columns:
        return rows
    if any(float(plane[0].max()) - float(plane[0].min()) > step for plane in planes):
        return 0
    for start in range(0, rows, _STRIP):
        strips = [plane[start : start + _STRIP] for plane in planes]
        is_varying = [strip.max(1).astype(np.float64) - strip.min(1) > step for strip in strips]
        varying = np.flatnonzero(np.any(is_varying, axis=0))
        if varying.size:
            return start + int(varying[0])
    return rows


def value_range(planes: Sequence[Array]) -> float:
    """Largest minus smallest value over all channels."""
    return max(float(plane.max()) for plane in planes) - min(float(plane.min()) for plane in planes)


def border_fraction(planes: list[Array]) -> float:
    """Fraction of the image in constant border rows and columns, such as black bars; 1 for a blank image."""
    return fraction_outside(content_box(planes, value_range(planes)), planes[0].size)


def fraction_outside(box: Box, pixels: int) -> float:
    """Fraction of an image with `pixels` pixels that is outside the box."""
    top, bottom, left, right = box
    return 1.0 - (bottom - top) * (right - left) / pixels


@dataclass(frozen=True, eq=False)
class Brightness:
    """Brightness of each pixel. channel_sum: (H, W) float32. low: its minimum. high: its percentile 99.5."""

    channel_sum: Array
    low: float
    high: float

    def level(self, fraction: float) -> float:
        """Value of `channel_sum` at a fraction of the range from low to high."""
        return self.low + fraction * max(self.high - self.low, 1e-6)

    @cached_property
    def ground(self) -> Array:
        """(H, W) bool: dark background."""
        return np.asarray(self.channel_sum <= self.level(_DARK))


def measure_brightness(planes: list[Array]) -> Brightness:
    """See `Brightness`."""
    gray = sum_channels(planes)
    step = max(1, isqrt(gray.size // _SAMPLES))
    return Brightness(gray, float(gray.min()), _quantile(gray[::step, ::step], _BRIGHT_QUANTILE))


def _quantile(values: Array, fraction: float) -> float:
    """Equal to np.quantile, but twice as fast for few values."""
    position = (values.size - 1) * fraction
    before = int(position)
    after = min(before + 1, values.size - 1)
    ordered = np.partition(values, (before, after), axis=None)
    low, high = float(ordered[before]), float(ordered[after])
    return low + (high - low) * (position - before)


def sum_channels(planes: Sequence[Array] | Array) -> Array:
    """(H, W) float32: the sum of the channels."""
    gray: Array = planes[0].astype(np.float32)
    for plane in planes[1:]:
        cv2.accumulate(plane, gray)
    return gray


def background_fraction(image_brightness: Brightness) -> float:
    """Fraction of the image that is dark background."""
    return _fraction(image_brightness.ground)


def layering(channel_sum: Array) -> float:
    """Mean vertical difference of neighbouring pixels divided by the horizontal one; 0 for a blank image.

    channel_sum: (H, W) of any type. Ultrasound has a finer resolution along the beam than across it: breast images have 1.8 to
    3.0. Photographs of polyps and skin, fundus, cardiac MR and stained tissue have less than 1.3.
    """
    even, odd = channel_sum[::2], channel_sum[1::2]
    vertical, horizontal = _mean_difference(even[: len(odd)], odd), _mean_difference(even[:, 1:], even[:, :-1])
    return vertical / horizontal if horizontal > 0 else 0.0


def _mean_difference(first: Array, second: Array) -> float:
    return float(cv2.mean(cv2.absdiff(first, second))[0]) if first.size else 0.0


def overlay_fraction(planes: list[Array], span: float, image_brightness: Brightness, mask: Array) -> float:
    """Fraction of the image that is text or markers: narrow bright components on dark background, and vivid colours in an
    otherwise gray image. Pixels in mask, (H, W) bool, do not count. Text on tissue is not detected. span: the `value_range`.

    On 30 images of each set, it finds the text in the black corners of all colonoscopies (0.6 % of the median image), and
    nothing in breast ultrasound, cardiac MR, fundus, skin and tissue images, which have no text.
    """
    candidates = (_text_mask(image_brightness, mask), _colour_mask(planes, span, mask))
    overlays = [overlay for overlay in candidates if overlay is not None]
    return _fraction(np.logical_or.reduce(overlays)) if overlays else 0.0


def _fraction(where: Array) -> float:
    # Much faster than np.mean of bool.
    return np.count_nonzero(where) / where.size if where.size else 0.0


def _text_mask(image_brightness: Brightness, mask: Array) -> Array | None:
    ground = image_brightness.ground
    if _fraction(ground) < _MIN_DARK_FRACTION:
        return None
    closed = cv2.morphologyEx(ground.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((_STROKE_WIDTH, _STROKE_WIDTH), np.uint8))
    _, components = cv2.connectedComponents((~ground).astype(np.uint8), connectivity=8)
    component_ids = components.ravel()

    def count_pixels(where: Array) -> Array:
        return np.bincount(component_ids, where.ravel())

    areas = np.bincount(component_ids)
    is_overlay = (count_pixels(closed) == areas) & (areas >= _MIN_AREA) & (count_pixels(mask) == 0)
    is_overlay &= count_pixels(image_brightness.channel_sum >= image_brightness.level(_BRIGHT)) >= _MIN_BRIGHT_FRACTION * areas
    is_overlay[0] = False  # the background
    # Components at the image border more likely belong to the scene.
    is_overlay[np.concatenate([components[0], components[-1], components[:, 0], components[:, -1]])] = False
    return np.asarray(is_overlay[components])


def _colour_mask(planes: list[Array], span: float, mask: Array) -> Array | None:
    if len(planes) != 3:
        return None
    first, second, third = planes
    chroma = cv2.subtract(cv2.max(cv2.max(first, second), third), cv2.min(cv2.min(first, second), third))
    # Integer levels are compared with an integer threshold, to avoid a conversion.
    kind = float if chroma.dtype.kind == "f" else int
    pale, vivid_from = (kind(fraction * max(span, 1e-6)) for fraction in (_PALE, _VIVID))
    # At least half of the pixels must be pale: the same as a test of the median, without sorting.
    if 2 * np.count_nonzero(chroma <= pale) < chroma.size:
        return None
    vivid: Array = (chroma > vivid_from) & ~mask
    return vivid if _fraction(vivid) <= _MAX_COLOUR_FRACTION else None
