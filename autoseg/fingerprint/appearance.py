"""What a picture looks like, whatever it shows: dark ground, constant borders, layers, things drawn over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import cv2
import numpy as np

from autoseg.io.types import Array

_BORDER_STEP = 8 / 255  # of the value range: black bars of a JPEG are not quite one value
_DARK = 0.05  # of the value range above the lowest value
_MIN_DARK_FRACTION = 0.02  # of the picture: with less dark ground nothing can stand out from it
_STROKE_WIDTH = 15  # pixels: strokes of letters and markers are narrower
_BRIGHT, _MIN_BRIGHT_FRACTION = 0.5, 0.3  # of the value range; of a stroke's pixels
_MIN_AREA = 4  # pixels
_STRIP = 8  # rows
_VIVID, _PALE = 0.25, 0.02  # of the value range: how far the channels of a coloured and of a gray pixel are apart
_SAMPLES = 2**14  # pixels that tell a picture's percentile
_BRIGHT_QUANTILE = 0.995  # of them lie below what counts as bright
_MAX_COLOUR_FRACTION = 0.05  # of the picture: with more colour than this it is a colour picture
Box = tuple[int, int, int, int]


def content_box(planes: list[Array], span: float) -> Box:
    """Top, bottom, left, right of what remains without the rows and columns at the edges that hold one value.

    extent: their `spread`. Of a blank image nothing remains: four zeros.
    """
    step = _BORDER_STEP * span
    width = planes[0].shape[1]
    top, bottom = _content_rows(planes, step)
    left, right = _content_rows([plane[top:bottom].T for plane in planes], step)
    if (left, right) != (0, width):
        # Rows again: without black bars at the sides more of them may hold one value.
        first, last = _content_rows([plane[top:bottom, left:right] for plane in planes], step)
        top, bottom = top + first, top + last
    return (top, bottom, left, right) if top < bottom and left < right else (0, 0, 0, 0)


def _content_rows(planes: list[Array], step: float) -> tuple[int, int]:
    """First and last + 1 of the rows whose values are more than `step` apart in some channel."""
    rows = len(planes[0])
    constant_rows = _count_constant_rows(planes, step)
    return (constant_rows, rows - _count_constant_rows([plane[::-1] for plane in planes], step)) if constant_rows < rows else (0, 0)


def _count_constant_rows(planes: list[Array], step: float) -> int:
    """Rows before the first busy one. Most pictures have none, so that the row at the edge is all that is looked at."""
    rows, columns = int(planes[0].shape[0]), int(planes[0].shape[1])
    if not rows or not columns:
        return rows
    if any(float(plane[0].max()) - float(plane[0].min()) > step for plane in planes):
        return 0
    for start in range(0, rows, _STRIP):
        strips = [plane[start : start + _STRIP] for plane in planes]
        chroma = [strip.max(1).astype(np.float64) - strip.min(1) > step for strip in strips]
        varying = np.flatnonzero(np.any(chroma, axis=0))
        if varying.size:
            return start + int(varying[0])
    return rows


def value_range(planes: Sequence[Array]) -> float:
    """Largest less smallest value of all channels."""
    return max(float(plane.max()) for plane in planes) - min(float(plane.min()) for plane in planes)


def border_fraction(planes: list[Array]) -> float:
    """Share of the image in rows and columns at its edges that hold one value, such as black bars; 1 for a blank image."""
    return fraction_outside(content_box(planes, value_range(planes)), planes[0].size)


def fraction_outside(box: Box, pixels: int) -> float:
    """Share of an image of so many pixels that lies outside a box."""
    top, bottom, left, right = box
    return 1.0 - (bottom - top) * (right - left) / pixels


@dataclass(frozen=True, eq=False)
class Brightness:
    """How bright a picture is at each place. summed: (H, W) float32, the sum of its channels, which counts from its lowest
    value, 0, to its percentile 99.5, 1."""

    channel_sum: Array
    low: float
    high: float

    def level(self, fraction: float) -> float:
        """The sum that is so bright."""
        return self.low + fraction * max(self.high - self.low, 1e-6)

    @cached_property
    def ground(self) -> Array:
        """(H, W) bool: as dark as the darkest parts."""
        return np.asarray(self.channel_sum <= self.level(_DARK))


def measure_brightness(planes: list[Array]) -> Brightness:
    """See `Brightness`."""
    gray = sum_channels(planes)
    step = max(1, isqrt(gray.size // _SAMPLES))
    return Brightness(gray, float(gray.min()), _quantile(gray[::step, ::step], _BRIGHT_QUANTILE))


def _quantile(values: Array, fraction: float) -> float:
    """As NumPy's, which takes twice as long for so few."""
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
    """Share of the picture that is as dark as its darkest parts."""
    return _fraction(image_brightness.ground)


def layering(channel_sum: Array) -> float:
    """How much values change down the picture against across it, 1 where they do alike; 0 for a blank picture.

    summed: (H, W) of any type, the sum of the channels; every second row is compared with the next, and along itself.
    Ultrasound sees finer along the beam than across it: breast images have 1.8 to 3.0. Photographs of polyps and skin, fundus,
    cardiac MR and stained tissue stay below 1.3.
    """
    overlay, other = sum_channels[::2], sum_channels[1::2]
    down, across = _mean_difference(overlay[: len(other)], other), _mean_difference(overlay[:, 1:], overlay[:, :-1])
    return down / across if across > 0 else 0.0


def _mean_difference(overlay: Array, other: Array) -> float:
    return float(cv2.mean(cv2.absdiff(overlay, other))[0]) if overlay.size else 0.0


def overlay_fraction(planes: list[Array], span: float, image_brightness: Brightness, mask: Array) -> float:
    """Share of the picture that was drawn over it: narrow bright things alone on dark ground, and vivid colours in a
    picture that is gray otherwise. What a mask marks (marked: (H, W) bool) is never counted. Text on tissue is not seen.
    extent: their `spread`.

    On 30 images each: all of the colonoscopies have text in their black corners (0.6 % of the median image), none of the
    breast ultrasound, cardiac MR, fundus, skin and tissue images, and in none of those any was found.
    """
    overlays = [overlay for overlay in (_text_mask(image_brightness, mask), _colour_mask(planes, span, mask)) if overlay is not None]
    return _fraction(np.logical_or.reduce(overlays)) if overlays else 0.0


def _fraction(where: Array) -> float:
    # Far faster than the mean of truth values.
    return np.count_nonzero(where) / where.size if where.size else 0.0


def _text_mask(image_brightness: Brightness, mask: Array) -> Array | None:
    ground = image_brightness.ground
    if _fraction(ground) < _MIN_DARK_FRACTION:
        return None
    closed = cv2.morphologyEx(ground.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((_STROKE_WIDTH, _STROKE_WIDTH), np.uint8))
    _, components = cv2.connectedComponents((~ground).astype(np.uint8), connectivity=8)
    component_ids = components.ravel()

    def pixels(where: Array) -> Array:
        return np.bincount(component_ids, where.ravel())

    areas = np.bincount(component_ids)
    is_overlay = (pixels(closed) == areas) & (areas >= _MIN_AREA) & (pixels(mask) == 0)
    is_overlay &= pixels(image_brightness.channel_sum >= image_brightness.level(_BRIGHT)) >= _MIN_BRIGHT_FRACTION * areas
    is_overlay[0] = False  # the ground itself
    # What the edge of the picture cuts off is more likely a part of the scene.
    is_overlay[np.concatenate([components[0], components[-1], components[:, 0], components[:, -1]])] = False
    return np.asarray(is_overlay[components])


def _colour_mask(planes: list[Array], span: float, mask: Array) -> Array | None:
    if len(planes) != 3:
        return None
    first, second, third = planes
    chroma = cv2.subtract(cv2.max(cv2.max(first, second), third), cv2.min(cv2.min(first, second), third))
    # Levels are compared as whole numbers, without being turned into others.
    kind = float if chroma.dtype.kind == "f" else int
    pale, vivid_from = (kind(fraction * max(span, 1e-6)) for fraction in (_PALE, _VIVID))
    # The median is at most this where half of the pixels are: no need to sort them.
    if 2 * np.count_nonzero(chroma <= pale) < chroma.size:
        return None
    vivid: Array = (chroma > vivid_from) & ~mask
    return vivid if _fraction(vivid) <= _MAX_COLOUR_FRACTION else None
