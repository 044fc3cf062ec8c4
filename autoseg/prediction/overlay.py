"""Overlays: contours drawn over the image, with a legend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.io import write_image
from autoseg.metrics.surface import border
from autoseg.schema.dataset import LabelScheme

Array = NDArray[Any]
Colour = tuple[int, int, int]
# Okabe and Ito's palette, safe for colour-blind readers. The first ones stand out on tissue and on gray.
COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (240, 228, 66),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (0, 114, 178),
)
# Smallest shorter side and largest longer side in pixels. Within them, an overlay is enlarged until thin structures are
# `_WIDTH` pixels wide: otherwise their two contours would hide them.
_SMALLEST, _LARGEST = 480, 1600
_WIDTH = 10
_DASH = 7
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_overlay(
    image: Array, labels: Array, scheme: LabelScheme, reference: Array | None = None, *, legend: bool = True
) -> Array:
    """A picture (H', W', 3) uint8 of an image (C, H, W) with the contours of a label map (H, W).

    Predicted contours are solid, those of `reference` dashed, each class or region in its own colour. legend: write it below.
    """
    picture = to_rgb8(image)
    width = _mean_width(labels if reference is None else reference)
    size = _display_size(picture.shape[:2], width)
    shrinks = size[0] < picture.shape[0]
    picture = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    thickness = 1 if width * size[0] / labels.shape[0] < 1.25 * _WIDTH else 2
    for place, member in enumerate(scheme.foreground.values()):
        colour = COLOURS[place % len(COLOURS)]
        if reference is not None:
            for line in _contours(np.isin(reference, member), size):
                _draw(picture, line, colour, thickness, dashed=True)
        for line in _contours(np.isin(labels, member), size):
            _draw(picture, line, colour, thickness, dashed=False)
    if not legend:
        return picture
    return np.concatenate([picture, _legend(size[1], list(scheme.foreground), reference is not None)])


def legend_colours(scheme: LabelScheme) -> dict[str, Colour]:
    """Class or region -> RGB colour of its contours."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(scheme.foreground)}


def mask_colours(scheme: LabelScheme) -> dict[int, Colour]:
    """Label value -> RGB colour, as the contours have."""
    values = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.foreground.values())
    return {value: COLOURS[place % len(COLOURS)] for place, value in enumerate(values)}


def write_overlay(path: Path, image: Array, labels: Array, scheme: LabelScheme, reference: Array | None = None) -> None:
    """`draw_overlay` as a PNG file."""
    if reference is not None and reference.shape != labels.shape:
        reference = None
    write_image(path, draw_overlay(image, labels, scheme, reference).transpose(2, 0, 1))


def to_rgb8(image: Array) -> Array:
    """(H, W, 3) uint8 from (C, H, W): uint8 as it is, other types scaled to their 0.5 and 99.5 percentiles."""
    planes = image if image.shape[0] == 3 else image[:1]
    if planes.dtype != np.uint8:
        low, high = np.percentile(planes, (0.5, 99.5))
        planes = (np.clip((planes - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(planes, (3, *planes.shape[1:])).transpose(1, 2, 0))


def _display_size(size: tuple[int, ...], width: float) -> tuple[int, int]:
    factor = max(1.0, _SMALLEST / min(size), _WIDTH / width)
    factor = min(factor, _LARGEST / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _mean_width(labels: Array) -> float:
    """Twice the area over the length of the border, in pixels: the width of a thin structure."""
    mask = labels > 0
    edge = np.count_nonzero(border(mask))
    return 2 * np.count_nonzero(mask) / edge if edge else float(_WIDTH)


def _contours(mask: Array, size: tuple[int, int]) -> list[Array]:
    """Outer and inner contours of a mask resized to `size`; smooth where it is enlarged."""
    if not mask.any():
        return []
    enlarged = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0.5
    contours, _ = cv2.findContours(enlarged.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [line[:, 0] for line in contours]


def _draw(picture: Array, line: Array, colour: Colour, thickness: int, dashed: bool) -> None:
    closed = np.concatenate([line, line[:1]])
    dash = _DASH * thickness
    pieces = [closed[start : start + dash] for start in range(0, len(closed), 2 * dash)] if dashed else [closed]
    if thickness == 1:
        # Antialiasing or a seam would hide a line one pixel wide.
        cv2.polylines(picture, pieces, False, colour, 1, cv2.LINE_8)
        return
    # A dark seam keeps bright colours visible on bright tissue.
    cv2.polylines(picture, pieces, False, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.polylines(picture, pieces, False, colour, thickness, cv2.LINE_AA)


def _legend(width: int, names: list[str], with_reference: bool) -> Array:
    """Lines of text (h, width, 3) on black: a sample of each colour with its class, then what solid and dashed mean."""
    entries: list[tuple[str, Colour, bool]] = [(name, COLOURS[place % len(COLOURS)], False) for place, name in enumerate(names)]
    if with_reference:
        white = (255, 255, 255)
        entries += [("prediction", white, False), ("reference", white, True)]
    scale, row, sample, gap = 0.5, 24, 28, 18
    places, x, y = [], gap // 2, 0
    for name, _, _ in entries:
        wide = sample + 6 + cv2.getTextSize(name, _FONT, scale, 1)[0][0] + gap
        if x + wide > width and x > gap // 2:
            x, y = gap // 2, y + row
        places.append((x, y))
        x += wide
    strip = np.zeros((y + row, width, 3), np.uint8)
    for (name, colour, dashed), (left, top) in zip(entries, places, strict=True):
        middle = top + row // 2
        line = np.array([[column, middle] for column in range(left, left + sample)], np.int32)
        pieces = [line[start : start + _DASH] for start in range(0, sample, 2 * _DASH)] if dashed else [line]
        cv2.polylines(strip, pieces, False, colour, 2, cv2.LINE_AA)
        cv2.putText(strip, name, (left + sample + 6, middle + 5), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return strip
