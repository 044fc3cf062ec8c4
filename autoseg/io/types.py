"""Images and labels as read from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
UNREADABLE = "the file is damaged or cut short: export or fetch it again, or take it out of the set"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Geometry of a medical file, in SimpleITK's terms and axis order (x, y, z).

    singletons: axes of length one that were squeezed out, in numpy's order. placed: origin and direction are the file's own.
    Holds no tags, so none are written back.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    singletons: tuple[int, ...] = ()
    placed: bool = True


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Image:
    """array: (C, H, W) uint8, uint16 or float32; colours are RGB. It may be a view, interleaved by pixel in memory.

    spacing: (row, column) in mm, None if the file has none. geometry: for `write_label`, None for
    pictures. notes: changes of the stored values by the reader (empty: none). orientation: the EXIF orientation that
    was applied, 1 for none.
    """

    array: Array
    spacing: tuple[float, float] | None
    geometry: Geometry | None = None
    notes: tuple[str, ...] = ()
    orientation: int = 1


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Label:
    """array: (H, W) integers. spacing, geometry, notes: as in Image. lossy: stored as JPEG, so values may be off."""

    array: Array
    spacing: tuple[float, float] | None
    geometry: Geometry | None = None
    notes: tuple[str, ...] = ()
    lossy: bool = False


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Decoded:
    """Output of a picture decoder, before the EXIF orientation is applied. array: (H, W) or (H, W, C), colours are RGB.

    orientation: the EXIF orientation to apply, 1 for none. palette: (N, 3) uint8 if the array holds indices into it.
    alpha: the index of the transparency band, None without one.
    """

    array: Array
    notes: tuple[str, ...] = ()
    orientation: int = 1
    lossy: bool = False
    palette: Array | None = None
    alpha: int | None = None


def as_label(array: Array) -> Array | None:
    """Non-negative integers as the smallest unsigned type; None for other values."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.uint8:
        return array
    if array.size and (not np.isfinite(array).all() or array.min() < 0 or float(array.max()) > 65535):
        return None
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        return None
    small = not array.size or array.max() <= 255
    return array.astype(np.uint8 if small else np.uint16, copy=False)


def as_image(array: Array) -> tuple[Array, tuple[str, ...]]:
    """uint8, uint16 and float32 stay; other types become float32. Second: a note if float32 cannot hold the values."""
    if array.dtype in (np.uint8, np.uint16, np.float32):
        return array, ()
    if array.dtype == np.bool_:
        return array.astype(np.uint8), ()
    exact = array.dtype.itemsize <= 2 or not array.size or float(np.abs(array).max()) <= 2**24
    note = () if exact else (f"{array.dtype} values rounded to float32",)
    return array.astype(np.float32), note
