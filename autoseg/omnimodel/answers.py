"""Convert the picture of a model to a mask. Its size, colours and polarity are often wrong."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import PIL.Image as Pillow
from numpy.typing import NDArray

from autoseg.schema.omnimodel import Threshold

Array = NDArray[Any]
Mask = NDArray[np.bool_]

RESIZED, STRETCHED, COLOURED, OVERLAY, INVERTED = "resized", "stretched", "coloured", "overlay", "inverted"
_COLOUR_SPREAD = 40  # between a pixel's channels, of 255: more than compression leaves on gray
_COLOUR_SHARE = 0.005
_ALIKE = 24  # two pixels this close, of 255, are the same after being drawn anew
_DARK = 32  # darker pixels look alike in a mask and in the image, and say nothing
_FAINT = 0.25  # a drawing that nowhere stands out this much, of 1, marks nothing


class Echo(Exception):
    """The picture is the image that was sent."""


class Unreadable(Exception):
    """The bytes are no picture."""


@dataclass(frozen=True)
class Drawn:
    """mask, gray: (H, W) of the input's size; gray in 0..1 is what was cut at the threshold. notes: corrections."""

    mask: Mask
    gray: NDArray[np.float32]
    notes: tuple[str, ...]


def read_answer(data: bytes, image: Array, threshold: Threshold = "fixed") -> Drawn:
    """The mask in an encoded picture. image: (H, W, 3) uint8, as it was sent. threshold: at 0.5, or Otsu's.

    Raises Unreadable and Echo.
    """
    picture = _decoded(data)
    notes = []
    height, width = image.shape[:2]
    if picture.shape[:2] != (height, width):
        notes.append(RESIZED)
        if abs(np.log(picture.shape[0] / picture.shape[1]) - np.log(height / width)) > 0.05:
            notes.append(STRETCHED)
        shrinks = picture.shape[0] > height
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    gray, kind = _gray(picture, image)
    notes += kind
    mask = gray > (_otsu(gray) if threshold == "otsu" or OVERLAY in kind else 0.5)
    if _frame(mask).mean() > 0.5 and mask.mean() > 0.5:
        mask, gray = ~mask, 1 - gray
        notes.append(INVERTED)
    return Drawn(mask, gray, tuple(notes))


def _decoded(data: bytes) -> Array:
    """(h, w, 3) uint8; what is transparent is black."""
    try:
        picture: Pillow.Image = Pillow.open(io.BytesIO(data))
        picture.load()
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise Unreadable(str(error)) from error
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Pillow.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Pillow.alpha_composite(black, picture)
    return np.asarray(picture.convert("RGB"))


def _gray(picture: Array, image: Array) -> tuple[NDArray[np.float32], list[str]]:
    """How strongly each pixel is marked, 0..1, and how it was drawn."""
    difference = cv2.absdiff(picture, image).max(axis=2)
    telling = image.max(axis=2) > _DARK
    same = difference[telling] <= _ALIKE
    if telling.mean() > 0.05 and same.mean() > 0.5:
        marked = difference.astype(np.float32) / 255
        if (difference > 2 * _ALIKE).mean() < 1e-4:
            raise Echo
        return marked, [OVERLAY]
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    if (spread > _COLOUR_SPREAD).mean() > _COLOUR_SHARE:
        # On a plain ground of any colour: how far a pixel is from it.
        ground = np.median(_frame(picture), axis=0)
        distance = np.abs(picture.astype(np.float32) - ground.astype(np.float32)).max(axis=2)
        strongest = float(np.percentile(distance, 99.9))
        return np.clip(distance / max(strongest, 255 * _FAINT), 0, 1).astype(np.float32), [COLOURED]
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255), []


def _otsu(gray: NDArray[np.float32]) -> float:
    """Otsu's threshold, but never so low that noise on an empty picture becomes an object."""
    levels = (gray * 255).astype(np.uint8)
    found, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(float(found) / 255, _FAINT / 2) if float(gray.max()) >= _FAINT else 1.0


def _frame(array: Array) -> Array:
    """The pixels at the edge of (H, W) or (H, W, C), in a row."""
    depth = max(1, round(0.01 * min(array.shape[:2])))
    edge = np.ones(array.shape[:2], bool)
    edge[depth:-depth, depth:-depth] = False
    return array[edge]
