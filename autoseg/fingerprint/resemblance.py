"""Which images show the same picture, though their bytes may differ.

A DCT hash alone is not enough for medical images: within 6 of 64 bits it takes 129 pairs of DRIVE's 40 different eyes for
duplicates, because it sees the layout (a bright disc) and not the vessels. So detail is compared: 32 x 32 thumbnails,
high-pass filtered, scaled to even contrast, with what all images of the set share taken out.
Measured on polyps, lesions, ultrasound, cardiac MR, fundus and histology: the same picture recompressed, resized, brightened
or blurred keeps a likeness above 0.9 (0.63 at worst); unrelated pictures of a set stay below 0.48.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
import numpy.typing as npt

from autoseg.fingerprint.appearance import summed
from autoseg.io.contents import Array

_SIDE = 32
_SAME = 0.75  # likeness with the set's common part taken out
_SAME_RAW = 0.90  # likeness without that, for sets too small to have a common part
_SCENE_SCORE = 6.0  # robust deviations above the set's usual likeness; unrelated pairs reached 5.2
_SCENE_LAYOUT = 0.90  # correlation of the plain thumbnails, asked for besides
_ENOUGH = 20  # images, before a common part means anything
_LARGEST_SHARE = 0.2  # a "scene" with more of the set than this is what the set looks like, not a patient
_BLOCK = 256
# The eight slowest waves of a cosine transform (DCT-II): (8, 32).
_WAVES = 2 * np.cos(np.pi / _SIDE * np.outer(np.arange(8), np.arange(_SIDE) + 0.5))
Thumbnail = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Likeness:
    """Pairs of indices. same: the same picture. scene: alike far beyond the rest, such as frames of one patient."""

    same: tuple[tuple[int, int], ...]
    scene: tuple[tuple[int, int], ...]


def thumbnail(image: Array, total: Array | None = None) -> Thumbnail | None:
    """(32, 32) gray of an image (C, H, W), zero mean, unit length; None for one that is flat, which is like any other.

    total: `summed` of the image, where it is known.
    """
    # Summed first: one plane is resized and not several.
    total = summed(image) if total is None else total
    small = cv2.resize(total, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) / len(image)
    centred = small - small.mean()
    length = float(np.linalg.norm(centred))
    flat = length <= 0.002 * _SIDE * max(float(np.abs(small).max()), 1e-6)
    return None if flat else (centred / length).astype(np.float32)


def perceptual_hash(small: Thumbnail | None) -> str:
    """64 bits in hex: the thumbnail's 8 x 8 lowest frequencies against their median; "" for flat images.

    The bits are those of imagehash's phash, which loads SciPy for its cosine transform.
    """
    if small is None:
        return ""
    low, high = float(small.min()), float(small.max())
    levels = np.floor((small - low) * (255 / (high - low))).astype(np.float64)
    frequencies = _WAVES @ levels @ _WAVES.T
    return str(imagehash.ImageHash(frequencies > np.median(frequencies)))


def compare(thumbnails: Sequence[Thumbnail | None]) -> Likeness:
    """Which images are alike; flat ones are never. Memory: 8 KB an image and one block of pairs; time grows with the pairs."""
    known = [(place, small) for place, small in enumerate(thumbnails) if small is not None]
    if len(known) < 2:
        return Likeness((), ())
    details = np.empty((len(known), _SIDE * _SIDE), np.float32)
    for row, (_, small) in zip(details, known, strict=True):
        row[:] = _detail(small)
    enough = len(known) >= _ENOUGH
    centred = _unit(details - details.mean(0)) if enough else details
    usual, spread = _usual(centred) if enough else (0.0, np.inf)
    same: list[tuple[int, int]] = []
    scene: list[tuple[int, int]] = []
    for start in range(0, len(known), _BLOCK):
        # Each pair once: what came before was compared with these already.
        rows, columns = slice(start, start + _BLOCK), slice(start, None)
        likeness = centred[rows] @ centred[columns].T
        alike = (details[rows] @ details[columns].T >= _SAME_RAW) | (enough & (likeness >= _SAME))
        candidates = np.argwhere(alike | ((likeness - usual) / spread >= _SCENE_SCORE))
        for row, column in candidates[candidates[:, 0] < candidates[:, 1]]:
            (first, one), (second, other) = known[start + row], known[start + column]
            if alike[row, column]:
                same.append((first, second))
            elif one.ravel() @ other.ravel() >= _SCENE_LAYOUT:
                scene.append((first, second))
    return Likeness(tuple(same), _without_sprawl(scene, len(known)))


def groups(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Sets that hang together through pairs, sorted."""
    parents: dict[int, int] = {}

    def root(item: int) -> int:
        while parents.setdefault(item, item) != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for one, other in pairs:
        parents[root(one)] = root(other)
    members: dict[int, list[int]] = defaultdict(list)
    for item in sorted(parents):
        members[root(item)].append(item)
    return sorted(tuple(group) for group in members.values())


def _detail(small: Thumbnail) -> Thumbnail:
    """High-pass filtered, each place scaled by the contrast around it, flattened to unit length."""
    high = small - cv2.GaussianBlur(small, (0, 0), 1)
    around = np.sqrt(cv2.GaussianBlur(high * high, (0, 0), 2)) + 1e-3 * float(small.std())
    even = (high / around).ravel()
    even -= even.mean()
    return np.asarray(even / max(float(np.linalg.norm(even)), 1e-9), np.float32)


def _unit(rows: Array) -> Array:
    """Rows of unit length, in place."""
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def _usual(rows: Array) -> tuple[float, float]:
    """Median and robust deviation of the likeness of pairs, from at most a thousand images."""
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), 1000)).astype(np.int64)]
    likeness = (some @ some.T)[np.triu_indices(len(some), 1)]
    middle = float(np.median(likeness))
    return middle, max(1.4826 * float(np.median(np.abs(likeness - middle))), 1e-3)


def _without_sprawl(pairs: list[tuple[int, int]], images: int) -> tuple[tuple[int, int], ...]:
    too_large = {item for group in groups(pairs) if len(group) > _LARGEST_SHARE * images for item in group}
    return tuple(pair for pair in pairs if pair[0] not in too_large)
