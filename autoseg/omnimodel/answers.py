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
_COLOUR_SPREAD = 40  # of 255, between a pixel's channels: more than compression artefacts of gray
_COLOUR_SHARE = 0.005
_SAME = 24  # of 255: smaller differences come from the model's re-encoding
_DARK = 32  # of 255: darker pixels are equal in masks and images, so they are not compared
_MIN_CONTRAST = 0.25  # of 1: a picture with less contrast marks nothing


class EchoedImage(Exception):
    """The answer is the image that was sent."""


class UnreadableAnswer(Exception):
    """The answer is not an image file."""


@dataclass(frozen=True)
class AnswerMask:
    """mask, gray: (H, W), the input's size. gray: values in 0..1 before the threshold. notes: corrections."""

    mask: Mask
    gray: NDArray[np.float32]
    notes: tuple[str, ...]


def read_answer(data: bytes, image: Array, threshold: Threshold = "fixed") -> AnswerMask:
    """The mask in an encoded picture. image: (H, W, 3) uint8, as it was sent. threshold: at 0.5, or Otsu's.

    Raises UnreadableAnswer and EchoedImage.
    """
    picture = _decoded(data)
    notes = []
    height, width = image.shape[:2]
    if picture.shape[:2] != (height, width):
        notes.append(RESIZED)
        if abs(np.log(picture.shape[0] / picture.shape[1]) - np.log(height / width)) > 0.05:
            notes.append(STRETCHED)
        is_larger = picture.shape[0] > height
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR)
    gray, styles = _gray(picture, image)
    notes += styles
    mask = gray > (_otsu(gray) if threshold == "otsu" or OVERLAY in styles else 0.5)
    if _border(mask).mean() > 0.5 and mask.mean() > 0.5:
        mask, gray = ~mask, 1 - gray
        notes.append(INVERTED)
    return AnswerMask(mask, gray, tuple(notes))


def _decoded(data: bytes) -> Array:
    """(h, w, 3) uint8; transparent pixels become black."""
    try:
        picture: Pillow.Image = Pillow.open(io.BytesIO(data))
        picture.load()
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise UnreadableAnswer(str(error)) from error
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Pillow.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Pillow.alpha_composite(black, picture)
    return np.asarray(picture.convert("RGB"))


def _gray(picture: Array, image: Array) -> tuple[NDArray[np.float32], list[str]]:
    """Strength of the mark at each pixel, 0..1, and the style of the drawing."""
    difference = cv2.absdiff(picture, image).max(axis=2)
    bright_pixels = image.max(axis=2) > _DARK
    unchanged = difference[bright_pixels] <= _SAME
    if bright_pixels.mean() > 0.05 and unchanged.mean() > 0.5:
        contrast = difference.astype(np.float32) / 255
        if (difference > 2 * _SAME).mean() < 1e-4:
            raise EchoedImage
        return contrast, [OVERLAY]
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    if (spread > _COLOUR_SPREAD).mean() > _COLOUR_SHARE:
        # The distance of each pixel's colour from the background's.
        background = np.median(_border(picture), axis=0)
        distance = np.abs(picture.astype(np.float32) - background.astype(np.float32)).max(axis=2)
        maximum = float(np.percentile(distance, 99.9))
        return np.clip(distance / max(maximum, 255 * _MIN_CONTRAST), 0, 1).astype(np.float32), [COLOURED]
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255), []


def _otsu(gray: NDArray[np.float32]) -> float:
    """Otsu's threshold, with a minimum so that noise in an empty picture is not an object."""
    levels = (gray * 255).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(float(level) / 255, _MIN_CONTRAST / 2) if float(gray.max()) >= _MIN_CONTRAST else 1.0


def _border(array: Array) -> Array:
    """The border pixels of (H, W) or (H, W, C), flattened: (N,) or (N, C)."""
    width = max(1, round(0.01 * min(array.shape[:2])))
    edge = np.ones(array.shape[:2], bool)
    edge[width:-width, width:-width] = False
    return array[edge]
