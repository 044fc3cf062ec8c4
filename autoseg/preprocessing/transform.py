"""One image or label map from the file's shape and channels to the stored ones: pure functions, the same for training
and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.preprocessing.label_maps import resize_label
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError

# Luminance weights of ITU-R BT.601, for a colour picture that reaches a model of gray ones.
_LUMINANCE = (0.299, 0.587, 0.114)
# cv2 resizes at most this many channels in its fast paths, and no more at all in some releases.
_CV2_CHANNELS = 4
_BAND_PIXELS = 1 << 20

Array = NDArray[Any]


def prepared_size(
    size: tuple[int, int], preparation: PreprocessingConfig, spacing: tuple[float, float] | None
) -> tuple[int, int]:
    """(height, width) that an image of `size` has in the store.

    spacing: (row, column) in mm. Raises AutosegError where the preparation needs it and there is none.
    """
    if preparation.geometry == "resize":
        assert preparation.size is not None, preparation
        return preparation.size
    if preparation.spacing is None:
        factors = (preparation.scale, preparation.scale)
    elif spacing is None:
        wanted = " x ".join(f"{s:g}" for s in preparation.spacing)
        raise AutosegError(
            f"the plan brings every image to {wanted} mm per pixel, but this one does not say how large its pixels are",
            "use a format that keeps the spacing (NIfTI, MHA, NRRD, DICOM), or give the spacing with the array",
        )
    else:
        factors = (spacing[0] / preparation.spacing[0], spacing[1] / preparation.spacing[1])
    return (max(1, round(size[0] * factors[0])), max(1, round(size[1] * factors[1])))


def preprocess_image(image: Array, preparation: PreprocessingConfig, spacing: tuple[float, float] | None = None) -> Array:
    """(C, H, W) as read -> (h, w, c) as stored: uint8, uint16 or float32, contiguous.

    Shrinks by area averages, enlarges bilinearly. A gray image for a colour model is repeated; a colour image for a model
    of gray ones becomes its luminance. Not-a-number and infinities become the image's smallest finite value. Raises
    AutosegError for another number of channels, values the stored type cannot hold, or a spacing that is missing.
    """
    if image.ndim != 3:
        raise AutosegError(f"an image must have axes (channels, rows, columns), this one has shape {image.shape}")
    values = _finite(with_channels(image, preparation))
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0))
    size = prepared_size(image.shape[1:], preparation, spacing)
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = _cast(pixels, preparation.dtype)
    return _cast(resize_pixels(pixels, size), preparation.dtype)


def prepare_label(label: Array, preparation: PreprocessingConfig, spacing: tuple[float, float] | None = None) -> Array:
    """(H, W) of label values -> (h, w) uint8 of the same values, resized so that thin structures stay as whole as they can.

    Raises AutosegError for values outside 0..255.
    """
    if label.ndim != 2:
        raise AutosegError(f"a label map must have axes (rows, columns), this one has shape {label.shape}")
    if label.size and (label.min() < 0 or label.max() > 255):
        raise AutosegError(
            f"label values must lie in 0..255, found {label.min()}..{label.max()}", "number the classes 0, 1, 2, ..."
        )
    return resize_label(label.astype(np.uint8), prepared_size(label.shape, preparation, spacing))


def resize_pixels(pixels: Array, size: tuple[int, int]) -> Array:
    """(H, W, C) uint8, uint16 or float32 -> (h, w, C) of the same type; each axis shrinks by area or grows bilinearly."""
    return _each_axis(pixels, size, _resize_channels)


def _each_axis(pixels: Array, size: tuple[int, int], resize: Callable[[Array, tuple[int, int], int], Array]) -> Array:
    """Shrink what shrinks, then enlarge what grows: cv2's area mode is no area average where one axis grows."""
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


def with_channels(image: Array, preparation: PreprocessingConfig) -> Array:
    """(C, H, W) with as many channels as are stored. Raises AutosegError where there is no honest way."""
    found, wanted = image.shape[0], preparation.channels
    if found == wanted:
        return image
    if wanted == 1 and found == 3:
        if np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2]):
            return image[:1]
        return _luminance(image)[None]
    if wanted == 3 and found == 1:
        return np.repeat(image, 3, axis=0)
    raise AutosegError(
        f"the image has {found} channel{'s' if found > 1 else ''}, the plan was made for {wanted}",
        "give the same channels in the same order as in the training images",
    )


def _luminance(image: Array) -> Array:
    """(3, H, W) -> (H, W) of the same type, in bands: in between, each value takes four bytes."""
    gray = np.empty(image.shape[1:], image.dtype)
    rows = max(1, _BAND_PIXELS // image.shape[2])
    for start in range(0, image.shape[1], rows):
        colours = image[:, start : start + rows].astype(np.float32)
        mixed = np.tensordot(np.asarray(_LUMINANCE, np.float32), colours, axes=1)
        gray[start : start + rows] = np.rint(mixed) if image.dtype.kind in "ui" else mixed
    return gray


def _finite(image: Array) -> Array:
    if image.dtype.kind != "f" or np.isfinite(image).all():
        return image
    known = image[np.isfinite(image)]
    fill = float(known.min()) if known.size else 0.0
    return np.nan_to_num(image, nan=fill, posinf=float(known.max()) if known.size else fill, neginf=fill)


def _cast(pixels: Array, dtype: str) -> Array:
    """Stored type. Raises AutosegError where values would be lost."""
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
