"""Out-of-distribution checks: does an image look like the training images? Measured on preprocessed images.

size        longer side of the image in its file, in pixels      spacing     of rows, in mm
brightness  mean value        contrast   deviation of values     darkest, brightest   1st and 99th percentile
colour      mean difference between a pixel's largest and smallest channel, divided by the value range
sharpness   mean absolute Laplacian over the contrast            border      fraction of constant rows and columns
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
# These measures are compared as ratios, the others as differences.
_RATIOS = ("size", "spacing", "contrast", "sharpness")
# Tolerance outside the training range, as a fraction of it: new images of the same kind often need it.
_MARGIN = 0.3
# With a smaller mean difference between channels a picture looks gray.
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
    """The measures of one image. prepared: (h, w, C) after preprocessing. size: (H, W) in the file. spacing: mm.

    colour: `colourfulness` of the original, if the preprocessed image is gray.
    """
    step = max(1, math.ceil(max(prepared.shape[:2]) / _LARGEST_SIDE))
    small = _planes(np.moveaxis(prepared[::step, ::step], 2, 0))
    gray = small[0].astype(np.float32)
    for plane in small[1:]:
        gray += plane
    gray /= len(small)
    contrast = float(gray.std())
    # A quarter of the pixels is enough for percentiles, and four times faster.
    darkest, brightest = (float(value) for value in np.percentile(gray[::2, ::2], (1, 99)))
    measures = {
        "size": float(max(size)),
        "brightness": float(gray.mean()),
        "contrast": contrast,
        "darkest": darkest,
        "brightest": brightest,
        "colour": _channel_spread(small) if colour is None else colour,
        "sharpness": float(np.abs(cv2.Laplacian(gray, cv2.CV_32F)).mean()) / max(contrast, 1e-6),
        "border": border_fraction(small),
    }
    if spacing is not None:
        measures["spacing"] = float(spacing[0])
    return {name: round(value, 6) for name, value in measures.items()}


def colourfulness(planes: NDArray[Any]) -> float:
    """Mean channel difference of an image (C, H, W), 0 to 1; 0 unless it has three channels."""
    step = max(1, math.ceil(max(planes.shape[1:]) / _LARGEST_SIDE))
    return _channel_spread(_planes(planes[:, ::step, ::step]))


def _planes(image: NDArray[Any]) -> list[NDArray[Any]]:
    """The channels of (C, H, W) as contiguous arrays: several times faster than interleaved pixels."""
    return [np.ascontiguousarray(plane) for plane in image]


def _channel_spread(planes: list[NDArray[Any]]) -> float:
    if len(planes) != 3:
        return 0.0
    first, second, third = planes
    largest, smallest = (step(step(first, second), third) for step in (np.maximum, np.minimum))
    spread = float(largest.max()) - float(smallest.min())
    return float((largest - smallest).mean()) / spread if spread else 0.0


def appearance(measured: Sequence[dict[str, float]]) -> Appearance:
    """The range of each measure over many images. Keeps the measures that all of them have."""
    shared = set.intersection(*(set(measures) for measures in measured)) if measured else set()
    spans = {}
    for name in sorted(shared):
        values = np.array([measures[name] for measures in measured])
        spans[name] = Span(float(values.min()), float(np.median(values)), float(values.max()))
    return Appearance(len(measured), spans)


def warnings(measured: dict[str, float], training: Appearance) -> tuple[str, ...]:
    """A sentence for each measure outside the training range."""
    messages = []
    spans = training.measures
    if "colour" in spans and spans["colour"].high < _GRAY < measured["colour"]:
        messages.append("a colour picture, but all training images were gray")
    if "colour" in spans and measured["colour"] < _GRAY < spans["colour"].low:
        messages.append("a gray picture, but all training images were in colour")
    for name, span in spans.items():
        if name not in measured or (name == "colour" and messages):
            continue
        low, high = _accepted_range(name, span, spans["contrast"].median if "contrast" in spans else 0.0)
        value, (less, more, form) = measured[name], _WORDS[name]
        if not low <= value <= high:
            trained_range = f"{span.low:.4g} to {span.high:.4g}"
            difference = less if value < low else more
            messages.append(f"{difference} than the training images: {form.format(value)} ({trained_range} in training)")
    if "spacing" in spans and "spacing" not in measured:
        messages.append("its pixel size in mm is not known, unlike those of the training images")
    return tuple(messages)


def _accepted_range(name: str, span: Span, contrast: float) -> tuple[float, float]:
    if name in _RATIOS:
        factor = (max(span.high, 1e-9) / max(span.low, 1e-9)) ** _MARGIN * 1.15
        return span.low / factor, span.high * factor
    # Absolute tolerance: a fraction of the contrast for values, hundredths for fractions.
    least = 0.02 if name in ("colour", "border") else 0.25 * contrast
    margin = _MARGIN * (span.high - span.low) + least
    return span.low - margin, span.high + margin
