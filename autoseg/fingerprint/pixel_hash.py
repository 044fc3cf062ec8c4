"""Hash of an image's decoded pixels: the same for every lossless copy, whatever its name, format and pixel type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash

from autoseg.io.types import Array

# Stored in each fingerprint. Increase it if the same image would get another hash: lists of folds of others name the old ones.
HASH_VERSION = 2


def pixel_hash(planes: Sequence[Array]) -> str:
    """XXH3, 128 bits, of planes (H, W), as 32 hexadecimal digits.

    Hashed are the text "<planes> (<H>, <W>) <type>" and then the planes, row by row. Three equal planes count as one, and the
    type is the first of uint8, uint16 and float32 that holds all values: a gray picture stored as RGB, and 8-bit values stored
    as 16-bit or float, are the same picture.
    """
    if len(planes) == 3 and all(_equal(planes[0], plane) for plane in planes[1:]):
        planes = planes[:1]
    kind = np.result_type(*(_smallest_type(plane) for plane in planes))
    digest = xxhash.xxh3_128(f"{len(planes)} {planes[0].shape} {kind}".encode())
    for plane in planes:
        digest.update(np.ascontiguousarray(plane, dtype=kind.newbyteorder("<")).data)
    return digest.hexdigest()


def _smallest_type(plane: Array) -> np.dtype[np.generic]:
    if plane.dtype == np.uint8:
        return plane.dtype
    low, high = float(plane.min()), float(plane.max())
    if low < 0 or high > np.iinfo(np.uint16).max or not _is_integer(plane):
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)


def _is_integer(plane: Array) -> bool:
    return plane.dtype.kind in "ui" or np.array_equal(plane, np.rint(plane))


def _equal(one: Array, other: Array) -> bool:
    # The first row differs in most images.
    return np.array_equal(one[:1], other[:1]) and np.array_equal(one, other)
