"""The fast chain: one resampling, one table for all changes of tone, then noise, blur and low resolution, on stored values.

An augmentation chain is a function `chain(image, label, corner, size, settings, random) -> (image, label)`, looked up by name
(`AUGMENTATIONS`, entry points "autoseg.augmentations"). image: (H, W, C), the whole case as it is stored, uint8, uint16 or
float32, read only. label: (H, W) uint8. corner: (row, column) of the window of `size` (height, width) to cut; it may be
negative or reach beyond the image (`autoseg.data.geometry.warp_crop` reflects there). settings: the plan's `Augmentation`.
random: the only source of chance, so that runs can be repeated; it is called in threads. It returns the window, (h, w, C) on
the scale of the stored values (the stored type or float32), and its labels (h, w) uint8.

uint8 stays uint8 throughout: that is a quarter of the memory to move, and what OpenCV is fastest at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.data.geometry import around_one, draw_geometry, in_groups, warp_crop
from autoseg.schema.plan import Augmentation

Array = NDArray[Any]

# Statistics are taken over every fourth pixel of every fourth row.
_SPARSE = 4
_QUANTILES = 1 << 12


def augment(
    image: Array,
    label: Array,
    corner: tuple[int, int],
    size: tuple[int, int],
    settings: Augmentation,
    random: np.random.Generator,
) -> tuple[Array, Array]:
    """A window of an image, augmented: (h, w, C) of the stored type and (h, w) uint8.

    image: (H, W, C) uint8, uint16 or float32. label: (H, W) uint8. corner: (row, column) of the window, may be negative.
    Equal generators give equal results.
    """
    pixels, labels = warp_crop(image, label, corner, size, draw_geometry(settings, random))
    return intensity_transforms(pixels, settings, random), labels


def intensity_transforms(image: Array, settings: Augmentation, random: np.random.Generator) -> Array:
    """Brightness, contrast, gamma, noise, blur, low resolution by their chances; image (H, W, C) -> the same shape and type.

    Three channels are taken for a colour and change their tone together; any other number of channels change it each on
    its own. Tones and noise are relative to the range of values: 0..255 for uint8, else what all but the outermost values
    of this window span.
    """
    colour = image.shape[2] == 3
    tones = [_draw_tone(settings, random) for _ in range(1 if colour else image.shape[2])]
    if any(tone.changes for tone in tones):
        image = _with_tones(image, tones * image.shape[2] if colour else tones)
    if random.random() < settings.p_noise:
        image = _with_noise(image, random.uniform(0, settings.noise), random)
    if random.random() < settings.p_blur:
        sigma = random.uniform(*settings.blur)
        image = in_groups(lambda part: cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), image)
    if random.random() < settings.p_low_resolution:
        image = _low_resolution(image, random.uniform(*settings.low_resolution))
    return image


@dataclass(frozen=True)
class _Tone:
    """Factors; 1 changes nothing. Applied to values in 0..1: brightness, contrast about the mean, then gamma."""

    brightness: float
    contrast: float
    gamma: float

    @property
    def changes(self) -> bool:
        return (self.brightness, self.contrast, self.gamma) != (1.0, 1.0, 1.0)

    def curve(self, values: Array, mean: float) -> Array:
        middle = mean * self.brightness
        changed = np.maximum((values * self.brightness - middle) * self.contrast + middle, 0)
        return changed if self.gamma == 1.0 else changed**self.gamma


def _draw_tone(settings: Augmentation, random: np.random.Generator) -> _Tone:
    drawn = [
        around_one(limits, random) if random.random() < chance else 1.0
        for chance, limits in (
            (settings.p_brightness, settings.brightness),
            (settings.p_contrast, settings.contrast),
            (settings.p_gamma, settings.gamma),
        )
    ]
    return _Tone(*drawn)


def _with_tones(image: Array, tones: list[_Tone]) -> Array:
    if image.dtype == np.uint8:
        means = image[::_SPARSE, ::_SPARSE].mean(axis=(0, 1)) / 255
        if tones[0] is tones[-1]:
            return cv2.LUT(image, _table(tones[0], float(means.mean()))).reshape(image.shape)
        tables = [_table(tone, float(mean)) for tone, mean in zip(tones, means, strict=True)]
        return np.stack([cv2.LUT(image[..., at], table) for at, table in enumerate(tables)], axis=2)
    changed = np.empty(image.shape, np.float32)
    for at, tone in enumerate(tones):
        low, span = _range(image[..., at])
        scaled = (image[..., at].astype(np.float32) - low) / span
        changed[..., at] = tone.curve(scaled, float(scaled[::_SPARSE, ::_SPARSE].mean())) * span + low
    return _stored(changed, image.dtype)


def _table(tone: _Tone, mean: float) -> NDArray[np.uint8]:
    table: NDArray[np.uint8] = _stored(tone.curve(np.arange(256, dtype=np.float32) / 255, mean) * 255, np.dtype(np.uint8))
    return table


def _with_noise(image: Array, deviation: float, random: np.random.Generator) -> Array:
    # Looking normal numbers up by random bits is five times faster than drawing them.
    bits = random.integers(0, 1 << 16, image.shape, dtype=np.uint16) >> 4
    if image.dtype == np.uint8:
        table = np.rint(_normal_quantiles() * (deviation * 255)).astype(np.int16)
        return cv2.add(image, table[bits], dtype=cv2.CV_8U).reshape(image.shape)
    spans = np.array([_range(image[..., at])[1] for at in range(image.shape[2])], np.float32)
    return _stored(image + _normal_quantiles()[bits] * (spans * np.float32(deviation)), image.dtype)


@cache
def _normal_quantiles() -> NDArray[np.float32]:
    """Equally likely values of a standard normal distribution."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((at + 0.5) / _QUANTILES) for at in range(_QUANTILES)], np.float32)


def _low_resolution(image: Array, zoom: float) -> Array:
    height, width = image.shape[:2]
    small = (max(1, round(width * zoom)), max(1, round(height * zoom)))

    def down_and_up(part: Array) -> Array:
        coarse = cv2.resize(part, small, interpolation=cv2.INTER_NEAREST)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    return in_groups(down_and_up, image)


def _range(channel: Array) -> tuple[float, float]:
    """Low end and span of one channel (H, W), without the outermost half percent; the span of a flat one is 1."""
    low, high = np.percentile(channel[::_SPARSE, ::_SPARSE], (0.5, 99.5))
    return float(low), float(high - low) or 1.0


def _stored(values: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "u":
        return np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype, copy=False)
