"""The fast augmentation chain, on stored values: one resampling; one lookup table for brightness, contrast and gamma; then
noise, blur and low resolution; and where a plan asks for them the changes of `domain_shift`.

An augmentation chain is a function `chain(image, label, corner, size, settings, random) -> (image, label)`, found by name
(`AUGMENTATIONS`, entry points "autoseg.augmentations"). image: the whole stored case (H, W, C), uint8, uint16 or float32,
read-only. label: (H, W) uint8. corner: (row, column) of the window of `size` (height, width) to crop; the window may reach
beyond the image (`autoseg.data.geometry.warp_crop` reflects there). settings: the plan's `Augmentation`. random: the only
random generator to use, so that runs are reproducible. Returns the window (h, w, C) on the scale of the stored values (stored
type or float32) and its labels (h, w) uint8. Chains run in threads.

uint8 stays uint8: a quarter of the memory traffic of float32, and OpenCV's fastest type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.data.domain_shift import bias_field, colour_jitter, compress, sharpen
from autoseg.data.geometry import around_one, draw_geometry, in_channel_groups, warp_crop
from autoseg.data.values import STRIDE, Array, to_stored_type, value_range
from autoseg.schema.plan import Augmentation

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
    """Brightness, contrast, gamma, colour, uneven brightness, noise, blur, low resolution, sharpening and JPEG, each with its
    probability; (H, W, C) -> same shape and type.

    Three channels count as colour and share their brightness, contrast and gamma; any other number of channels change
    separately. Strengths are relative to the range of values: 0..255 for uint8, else the window's 0.5 to 99.5 percentiles.
    """
    colour = image.shape[2] == 3
    tones = [_draw_tone(settings, random) for _ in range(1 if colour else image.shape[2])]
    if any(tone.is_active for tone in tones):
        image = _apply_tones(image, tones * image.shape[2] if colour else tones)
    # Without a chance nothing is drawn, here and below, so that runs without them keep their random numbers.
    if colour and settings.p_colour and random.random() < settings.p_colour:
        hue, saturation = random.uniform(-settings.hue, settings.hue), around_one(settings.saturation, random)
        image = colour_jitter(image, hue, saturation, 1 + random.uniform(-settings.tint, settings.tint, 3))
    if settings.p_bias and random.random() < settings.p_bias:
        image = bias_field(image, settings.bias, random)
    if random.random() < settings.p_noise:
        image = _add_noise(image, random.uniform(0, settings.noise), random)
    if random.random() < settings.p_blur:
        sigma = random.uniform(*settings.blur)
        image = in_channel_groups(lambda part: cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), image)
    if random.random() < settings.p_low_resolution:
        image = _low_resolution(image, random.uniform(*settings.low_resolution))
    if settings.p_sharpen and random.random() < settings.p_sharpen:
        image = sharpen(image, random.uniform(*settings.sharpen))
    if settings.p_jpeg and random.random() < settings.p_jpeg:
        image = compress(image, round(random.uniform(*settings.jpeg)))
    return image


@dataclass(frozen=True)
class _ToneFactors:
    """Factors for values in 0..1; 1 changes nothing. Order: brightness, contrast around the mean, gamma."""

    brightness: float
    contrast: float
    gamma: float

    @property
    def is_active(self) -> bool:
        return (self.brightness, self.contrast, self.gamma) != (1.0, 1.0, 1.0)

    def curve(self, values: Array, mean: float) -> Array:
        centre = mean * self.brightness
        changed = np.maximum((values * self.brightness - centre) * self.contrast + centre, 0)
        return changed if self.gamma == 1.0 else changed**self.gamma


def _draw_tone(settings: Augmentation, random: np.random.Generator) -> _ToneFactors:
    factors = [
        around_one(limits, random) if random.random() < chance else 1.0
        for chance, limits in (
            (settings.p_brightness, settings.brightness),
            (settings.p_contrast, settings.contrast),
            (settings.p_gamma, settings.gamma),
        )
    ]
    return _ToneFactors(*factors)


def _apply_tones(image: Array, tones: list[_ToneFactors]) -> Array:
    if image.dtype == np.uint8:
        means = image[::STRIDE, ::STRIDE].mean(axis=(0, 1)) / 255
        if tones[0] is tones[-1]:
            return cv2.LUT(image, _table(tones[0], float(means.mean()))).reshape(image.shape)
        tables = [_table(tone, float(mean)) for tone, mean in zip(tones, means, strict=True)]
        return np.stack([cv2.LUT(image[..., channel], table) for channel, table in enumerate(tables)], axis=2)
    changed = np.empty(image.shape, np.float32)
    for channel, tone in enumerate(tones):
        low, width = value_range(image[..., channel])
        normalised = (image[..., channel].astype(np.float32) - low) / width
        changed[..., channel] = tone.curve(normalised, float(normalised[::STRIDE, ::STRIDE].mean())) * width + low
    return to_stored_type(changed, image.dtype)


def _table(tone: _ToneFactors, mean: float) -> NDArray[np.uint8]:
    curve = tone.curve(np.arange(256, dtype=np.float32) / 255, mean)
    table: NDArray[np.uint8] = to_stored_type(curve * 255, np.dtype(np.uint8))
    return table


def _add_noise(image: Array, deviation: float, random: np.random.Generator) -> Array:
    # Looking up normal numbers by random bits is five times faster than drawing them.
    bits = random.integers(0, 1 << 16, image.shape, dtype=np.uint16) >> 4
    if image.dtype == np.uint8:
        table = np.rint(_normal_quantiles() * (deviation * 255)).astype(np.int16)
        return cv2.add(image, table[bits], dtype=cv2.CV_8U).reshape(image.shape)
    ranges = np.array([value_range(image[..., channel])[1] for channel in range(image.shape[2])], np.float32)
    return to_stored_type(image + _normal_quantiles()[bits] * (ranges * np.float32(deviation)), image.dtype)


@cache
def _normal_quantiles() -> NDArray[np.float32]:
    """Equally likely values of the standard normal distribution."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((index + 0.5) / _QUANTILES) for index in range(_QUANTILES)], np.float32)


def _low_resolution(image: Array, zoom: float) -> Array:
    height, width = image.shape[:2]
    low_size = (max(1, round(width * zoom)), max(1, round(height * zoom)))

    def down_and_upsample(channels: Array) -> Array:
        # OpenCV's nearest neighbour is the upper left one: it would move the image against its label.
        low = cv2.resize(channels, low_size, interpolation=cv2.INTER_LINEAR)
        return cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)

    return in_channel_groups(down_and_upsample, image)

