"""Resamples probabilities to the original image size, as probabilities or as a label map.

Probabilities are interpolated before the class is chosen: boundaries stay smooth, while a resized label map has stairs.
Works in bands of rows, so that memory holds the float maps of one band only.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoseg.schema.dataset import LabelScheme

FloatMaps = NDArray[np.float32]
_BAND_PIXELS = 1 << 21


def label_map(probabilities: Tensor | FloatMaps, scheme: LabelScheme, size: tuple[int, int]) -> NDArray[np.integer]:
    """Label map (H, W) of `size` from probabilities (K, h, w); uint8, or uint16 if the values need it.

    Classes: the most probable one; the first of equal ones. Regions: each region above 0.5 writes its value; later regions
    overwrite earlier ones.
    """
    maps = _array(probabilities)
    if len(maps) != scheme.outputs:
        raise ValueError(f"{len(maps)} maps for {scheme.outputs} outputs")
    values = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.members)
    labels = np.zeros(size, dtype=np.uint8 if max(values) < 256 else np.uint16)
    choose_labels = _paint if scheme.regions else _most_probable
    for start, stop in _bands(size):
        choose_labels(maps, size, (start, stop), values, labels[start:stop])
    return labels


def resize(probabilities: Tensor | FloatMaps, size: tuple[int, int]) -> FloatMaps:
    """Probabilities (K, h, w) at `size`: (K, H, W) float32. Bilinear, pixel centres at 0.5, as for images."""
    maps = _array(probabilities)
    if maps.shape[1:] == size:
        return maps
    return np.stack([_resized(channel, size) for channel in maps])


def _most_probable(
    maps: FloatMaps, size: tuple[int, int], rows: tuple[int, int], values: tuple[int, ...], out: NDArray[np.integer]
) -> None:
    if len(maps) == 2:
        # Two probabilities with sum 1 keep that sum under interpolation.
        np.copyto(out, values[1], where=band(maps[1], size, rows) > 0.5)
        return
    best = band(maps[0], size, rows).copy()
    for channel, value in zip(maps[1:], values[1:], strict=True):
        candidate = band(channel, size, rows)
        np.copyto(out, value, where=candidate > best)
        np.maximum(best, candidate, out=best)


def _paint(
    maps: FloatMaps, size: tuple[int, int], rows: tuple[int, int], values: tuple[int, ...], out: NDArray[np.integer]
) -> None:
    for channel, value in zip(maps, values, strict=True):
        np.copyto(out, value, where=band(channel, size, rows) > 0.5)


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    height, width = size
    rows = max(1, _BAND_PIXELS // width)
    return ((start, min(start + rows, height)) for start in range(0, height, rows))


def band(channel: FloatMaps, size: tuple[int, int], rows: tuple[int, int]) -> FloatMaps:
    """Rows `rows` of one map (h, w) resized to `size`; equal to those rows of the whole resized map."""
    (height, width), (start, stop) = size, rows
    if channel.shape == size:
        return channel[start:stop]
    if (start, stop) == (0, height):
        return _resized(channel, size)
    position = np.clip((np.arange(start, stop, dtype=np.float32) + 0.5) * (len(channel) / height) - 0.5, 0, len(channel) - 1)
    above = position.astype(np.intp)
    below = np.minimum(above + 1, len(channel) - 1)
    fraction = (position - above)[:, None].astype(np.float32)
    interpolated = channel[above] * (1 - fraction) + channel[below] * fraction
    return _resized(interpolated, (stop - start, width))


def _resized(channel: FloatMaps, size: tuple[int, int]) -> FloatMaps:
    resized = cv2.resize(channel, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def _array(probabilities: Tensor | FloatMaps) -> FloatMaps:
    return np.asarray(probabilities.cpu() if isinstance(probabilities, Tensor) else probabilities, dtype=np.float32)
