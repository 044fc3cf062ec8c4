"""Changes as between scanners, cameras, stains and archives, on stored values: colour, uneven brightness, sharpening, JPEG.

All take and return (H, W, C) of the stored type: uint8, uint16 or float32. Other types than uint8 are changed relative to the
window's 0.5 to 99.5 percentiles.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from autoseg.data.geometry import in_channel_groups
from autoseg.data.values import Array, to_stored_type, value_range

# Points per side of the random field of brightness: smooth, as that of a coil or a lamp.
_FIELD_POINTS = 3
_SHARPEN_SIGMA = 1.0
# Luminance and two colour differences (YIQ) of RGB.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def colour_jitter(image: Array, hue: float, saturation: float, gains: Array) -> Array:
    """RGB with its hue turned by `hue` degrees, the distance to gray multiplied, and a factor for each channel (3,)."""
    angle = math.radians(hue)
    turned = saturation * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    change = np.eye(3)
    change[1:, 1:] = turned
    matrix = gains[:, None] * (np.linalg.inv(_YIQ) @ change @ _YIQ)
    low = 0.0 if image.dtype == np.uint8 else value_range(image)[0]
    offset = low - matrix.sum(axis=1) * low
    return np.asarray(cv2.transform(image, np.concatenate([matrix, offset[:, None]], axis=1)))


def bias_field(image: Array, strength: float, random: np.random.Generator) -> Array:
    """Values times a smooth random field, the same for all channels, between exp(-strength) and about exp(strength)."""
    points = random.uniform(-strength, strength, (_FIELD_POINTS, _FIELD_POINTS)).astype(np.float32)
    field = np.exp(cv2.resize(points, image.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    if image.dtype == np.uint8:
        return to_stored_type(image * field[..., None], image.dtype)
    lows = np.array([value_range(image[..., channel])[0] for channel in range(image.shape[2])], np.float32)
    return to_stored_type((image - lows) * field[..., None] + lows, image.dtype)


def sharpen(image: Array, amount: float) -> Array:
    """Adds `amount` times the detail that a small blur removes."""

    def change(channels: Array) -> Array:
        blurred = cv2.GaussianBlur(channels, (0, 0), _SHARPEN_SIGMA, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(cv2.addWeighted(channels, 1 + amount, blurred, -amount, 0))

    return in_channel_groups(change, image)


def compress(image: Array, quality: int) -> Array:
    """With the errors of a JPEG of this quality (1 to 100): three channels as colour, others one by one."""
    if image.shape[2] == 3:
        return _with_jpeg_errors(image, quality)
    return np.concatenate([_with_jpeg_errors(image[..., [channel]], quality) for channel in range(image.shape[2])], axis=2)


def _with_jpeg_errors(image: Array, quality: int) -> Array:
    if image.dtype == np.uint8:
        return _through_jpeg(image, quality)
    # Only the errors are taken over, so values keep their depth and those beyond the percentiles stay.
    low, width = value_range(image)
    pixels = to_stored_type((image.astype(np.float32) - low) * (255 / width), np.dtype(np.uint8))
    errors = _through_jpeg(pixels, quality).astype(np.float32) - pixels
    return to_stored_type(image + errors * np.float32(width / 255), image.dtype)


def _through_jpeg(pixels: Array, quality: int) -> Array:
    # OpenCV takes and gives blue, green, red.
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    flag = cv2.IMREAD_COLOR if pixels.shape[2] == 3 else cv2.IMREAD_GRAYSCALE
    return np.ascontiguousarray(np.asarray(cv2.imdecode(encoded, flag)).reshape(pixels.shape)[..., ::-1])
