"""Preprocessing of one image or label map: channels, size, dtype. Pure functions, the same for training and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.preprocessing.label_maps import resize_label
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError

# Luminance weights of ITU-R BT.601, for colour images and a model of gray images.
_LUMINANCE = (0.299, 0.587, 0.114)
# cv2 has fast paths for up to this many channels; some releases support no more.
_CV2_CHANNELS = 4
_BAND_PIXELS = 1 << 20

Array = NDArray[Any]


def preprocessed_size(
    size: tuple[int, int], config: PreprocessingConfig, spacing: tuple[float, float] | None
) -> tuple[int, int]:
    """(height, width) of an image of `size` after preprocessing.

    spacing: (row, column) in mm. Raises AutosegError if `config` needs it and it is None.
    """
    if config.geometry == "resize":
        assert config.size is not None, config
        return config.size
    if config.spacing is None:
        factors = (config.scale, config.scale)
    elif spacing is None:
        expected = " x ".join(f"{s:g}" for s in config.spacing)
        raise AutosegError(
            f"the plan resamples every image to {expected} mm per pixel, but this image has no spacing",
            "use a format that keeps the spacing (NIfTI, MHA, NRRD, DICOM), or pass the spacing with the array",
        )
    else:
        factors = (spacing[0] / config.spacing[0], spacing[1] / config.spacing[1])
    return (max(1, round(size[0] * factors[0])), max(1, round(size[1] * factors[1])))


def image_window(
    size: tuple[int, int], config: PreprocessingConfig, spacing: tuple[float, float] | None = None
) -> tuple[slice, slice]:
    """Where an image of `size` lies in its preprocessed array: rows and columns. All of it, unless it is padded."""
    height, width = preprocessed_size(size, config, spacing)
    if not config.pad:
        return slice(0, height), slice(0, width)
    factor = min(height / size[0], width / size[1])
    inner = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return slice(top, top + inner[0]), slice(left, left + inner[1])


def place(
    array: Array, config: PreprocessingConfig, resize: Callable[[Array, tuple[int, int]], Array], fill: float = 0
) -> Array:
    """An image (H, W, C) or map (H, W) as it is stored: resized by `resize` into its window, with `fill` around it."""
    size = (array.shape[0], array.shape[1])
    rows, columns = image_window(size, config)
    inner = resize(array, (rows.stop - rows.start, columns.stop - columns.start))
    if not config.pad:
        return inner
    placed = np.full((*preprocessed_size(size, config, None), *array.shape[2:]), fill, inner.dtype)
    placed[rows, columns] = inner
    return placed


def preprocess_image(image: Array, config: PreprocessingConfig, spacing: tuple[float, float] | None = None) -> Array:
    """(C, H, W) as read -> (h, w, c) as stored: uint8, uint16 or float32, contiguous.

    Shrinks by area averages, enlarges bilinearly; around a padded image are zeros, for float32 its lowest
    value. For a colour model, a gray image is repeated; for a gray model, a colour
    image becomes its luminance. NaN and -inf become the smallest finite value, inf the largest. Raises AutosegError for
    another number of channels, values outside the stored type, or a missing spacing.
    """
    if image.ndim != 3:
        raise AutosegError(f"an image must have axes (channels, rows, columns), this one has shape {image.shape}")
    values = _finite(match_channels(image, config))
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0))
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = _cast(pixels, config.dtype)
    if config.pad:
        fill = 0.0 if pixels.dtype.kind == "u" else float(pixels.min())
        return _cast(place(pixels, config, resize_pixels, fill), config.dtype)
    return _cast(resize_pixels(pixels, preprocessed_size(image.shape[1:], config, spacing)), config.dtype)


def preprocess_label(label: Array, config: PreprocessingConfig, spacing: tuple[float, float] | None = None) -> Array:
    """(H, W) of label values -> (h, w) uint8 of the same values, resized so that thin structures stay connected.

    Raises AutosegError for values outside 0..255.
    """
    if label.ndim != 2:
        raise AutosegError(f"a label map must have axes (rows, columns), this one has shape {label.shape}")
    if label.size and (label.min() < 0 or label.max() > 255):
        raise AutosegError(
            f"label values must be in 0..255, this map has {label.min()}..{label.max()}", "number the classes 0, 1, 2, ..."
        )
    if config.pad:
        return place(label.astype(np.uint8), config, resize_label)
    return resize_label(label.astype(np.uint8), preprocessed_size(label.shape, config, spacing))


def resize_pixels(pixels: Array, size: tuple[int, int]) -> Array:
    """(H, W, C) uint8, uint16 or float32 -> (h, w, C) of the same type; each axis shrinks by area or grows bilinearly."""
    return _shrink_then_enlarge(pixels, size, _resize_channels)


def _shrink_then_enlarge(pixels: Array, size: tuple[int, int], resize: Callable[[Array, tuple[int, int], int], Array]) -> Array:
    """Two steps, because cv2's area mode does not average areas if one axis grows."""
    smaller = (min(pixels.shape[0], size[0]), min(pixels.shape[1], size[1]))
    if smaller != pixels.shape[:2]:
        pixels = resize(pixels, smaller, cv2.INTER_AREA)
    if size != pixels.shape[:2]:
        pixels = resize(pixels, size, cv2.INTER_LINEAR)
    return np.ascontiguousarray(pixels)


def _resize_channels(pixels: Array, size: tuple[int, int], interpolation: int) -> Array:
    count = pixels.shape[2]
    parts = []
    for start in range(0, count, _CV2_CHANNELS):
        part = np.ascontiguousarray(pixels[..., start : start + _CV2_CHANNELS])
        resized = cv2.resize(part, (size[1], size[0]), interpolation=interpolation)
        parts.append(resized.reshape(*size, part.shape[2]))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def match_channels(image: Array, config: PreprocessingConfig) -> Array:
    """(C, H, W) with the channels of `config`. Raises AutosegError if there is no conversion."""
    channels, expected = image.shape[0], config.channels
    if channels == expected:
        return image
    if expected == 1 and channels == 3:
        if np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2]):
            return image[:1]
        return _luminance(image)[None]
    if expected == 3 and channels == 1:
        return np.repeat(image, 3, axis=0)
    raise AutosegError(
        f"the image has {channels} channel{'s' if channels > 1 else ''}, the plan was made for {expected}",
        "give the same channels in the same order as in the training images",
    )


def _luminance(image: Array) -> Array:
    """(3, H, W) -> (H, W) of the same type, in bands, because float32 copies need memory."""
    gray = np.empty(image.shape[1:], image.dtype)
    rows = max(1, _BAND_PIXELS // image.shape[2])
    for start in range(0, image.shape[1], rows):
        colours = image[:, start : start + rows].astype(np.float32)
        luminance = np.tensordot(np.asarray(_LUMINANCE, np.float32), colours, axes=1)
        gray[start : start + rows] = np.rint(luminance) if image.dtype.kind in "ui" else luminance
    return gray


def _finite(image: Array) -> Array:
    if image.dtype.kind != "f" or np.isfinite(image).all():
        return image
    finite = image[np.isfinite(image)]
    fill = float(finite.min()) if finite.size else 0.0
    return np.nan_to_num(image, nan=fill, posinf=float(finite.max()) if finite.size else fill, neginf=fill)


def _cast(pixels: Array, dtype: str) -> Array:
    """Converts to the stored dtype. Raises AutosegError if values do not fit."""
    target = np.dtype(dtype)
    if pixels.dtype == target:
        return pixels
    if target.kind == "u":
        limit = np.iinfo(target).max
        low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
        if low < 0 or high > limit:
            raise AutosegError(
                f"the image holds values {low:g}..{high:g}, the training images were {dtype} (0..{limit})",
                "give images of the same kind and bit depth as the training images",
            )
        if pixels.dtype.kind == "f":
            pixels = np.rint(pixels)
    return pixels.astype(target)
