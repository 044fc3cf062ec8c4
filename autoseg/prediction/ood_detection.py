"""Does a new image look like those of the training? Measured on what the network sees, so that both are alike prepared.

    size        longer side of the image in its file, in pixels      spacing     of rows, in mm
    brightness  mean value        contrast   deviation of values     darkest, brightest   1st and 99th percentile
    colour      mean difference between a pixel's largest and smallest channel, as a share of the value range
    sharpness   mean absolute Laplacian over the contrast            border      share of constant rows and columns
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.fingerprint.appearance import border_fraction
from autoseg.schema.appearance import Appearance, Span

FILE = "appearance.json"
# Measures whose steps are factors; the others' are differences.
_RATIOS = ("size", "spacing", "contrast", "sharpness")
# A measure may lie this share of the training's span outside it: the next image of the same kind often does.
_MARGIN = 0.3
# Below this mean difference between channels a picture is gray to the eye.
_GRAY = 0.01
_LARGEST_SIDE = 512
_WORDS = {
    "size": ("smaller", "larger", "{:.0f} px on its longer side"),
    "spacing": ("finer", "coarser", "{:.3g} mm per pixel"),
    "brightness": ("darker", "brighter", "mean value {:.4g}"),
    "contrast": ("flatter", "of more contrast", "deviation {:.4g}"),
    "darkest": ("lower in its dark parts", "higher in its dark parts", "1st percentile {:.4g}"),
    "brightest": ("lower in its bright parts", "higher in its bright parts", "99th percentile {:.4g}"),
    "colour": ("less colourful", "more colourful", "colour {:.3f}"),
    "sharpness": ("more blurred", "sharper or noisier", "sharpness {:.3g}"),
    "border": ("with less border", "with more border", "{:.2f} of it is border"),
}


def measure(
    prepared: NDArray[Any], size: tuple[int, int], spacing: tuple[float, float] | None, colour: float | None = None
) -> dict[str, float]:
    """The measures of one image. prepared: (h, w, C) stored values. size: (H, W) in the file.

    colour: see `colourfulness`, where the prepared image cannot show it.
    """
    step = max(1, math.ceil(max(prepared.shape[:2]) / _LARGEST_SIDE))
    small = _planes(np.moveaxis(prepared[::step, ::step], 2, 0))
    gray = small[0].astype(np.float32)
    for plane in small[1:]:
        gray += plane
    gray /= len(small)
    contrast = float(gray.std())
    # A quarter of the pixels tells these as well, in a quarter of the time.
    darkest, brightest = (float(value) for value in np.percentile(gray[::2, ::2], (1, 99)))
    found = {
        "size": float(max(size)),
        "brightness": float(gray.mean()),
        "contrast": contrast,
        "darkest": darkest,
        "brightest": brightest,
        "colour": _apart(small) if colour is None else colour,
        "sharpness": float(np.abs(cv2.Laplacian(gray, cv2.CV_32F)).mean()) / max(contrast, 1e-6),
        "border": border_fraction(small),
    }
    if spacing is not None:
        found["spacing"] = float(spacing[0])
    return {name: round(value, 6) for name, value in found.items()}


def colourfulness(planes: NDArray[Any]) -> float:
    """Of (C, H, W): 0 where it has not three channels."""
    step = max(1, math.ceil(max(planes.shape[1:]) / _LARGEST_SIDE))
    return _apart(_planes(planes[:, ::step, ::step]))


def _planes(image: NDArray[Any]) -> list[NDArray[Any]]:
    """The channels of (C, H, W), each contiguous: work on them goes several times faster than on interleaved pixels."""
    return [np.ascontiguousarray(plane) for plane in image]


def _apart(planes: list[NDArray[Any]]) -> float:
    if len(planes) != 3:
        return 0.0
    first, second, third = planes
    largest, smallest = (step(step(first, second), third) for step in (np.maximum, np.minimum))
    spread = float(largest.max()) - float(smallest.min())
    return float((largest - smallest).mean()) / spread if spread else 0.0


def appearance(measured: Sequence[dict[str, float]]) -> Appearance:
    """The spans of many images' measures. A measure that some of them lack is left out."""
    shared = set.intersection(*(set(one) for one in measured)) if measured else set()
    spans = {}
    for name in sorted(shared):
        values = np.array([one[name] for one in measured])
        spans[name] = Span(float(values.min()), float(np.median(values)), float(values.max()))
    return Appearance(len(measured), spans)


def warnings(measured: dict[str, float], training: Appearance) -> tuple[str, ...]:
    """A sentence for each measure outside what was seen in training."""
    found = []
    spans = training.measures
    if "colour" in spans and spans["colour"].high < _GRAY < measured["colour"]:
        found.append("a colour picture, but all training images were gray")
    if "colour" in spans and measured["colour"] < _GRAY < spans["colour"].low:
        found.append("a gray picture, but all training images were in colour")
    for name, span in spans.items():
        if name not in measured or (name == "colour" and found):
            continue
        low, high = _accepted(name, span, spans["contrast"].median if "contrast" in spans else 0.0)
        value, (less, more, form) = measured[name], _WORDS[name]
        if not low <= value <= high:
            seen = f"{span.low:.4g} to {span.high:.4g}"
            found.append(f"{less if value < low else more} than the training images: {form.format(value)} ({seen} in training)")
    if "spacing" in spans and "spacing" not in measured:
        found.append("the size of its pixels in mm is not known, those of the training images were")
    return tuple(found)


def _accepted(name: str, span: Span, contrast: float) -> tuple[float, float]:
    if name in _RATIOS:
        factor = (max(span.high, 1e-9) / max(span.low, 1e-9)) ** _MARGIN * 1.15
        return span.low / factor, span.high * factor
    # Values are told apart by eye and network against the contrast; shares by hundredths.
    least = 0.02 if name in ("colour", "border") else 0.25 * contrast
    margin = _MARGIN * (span.high - span.low) + least
    return span.low - margin, span.high + margin
