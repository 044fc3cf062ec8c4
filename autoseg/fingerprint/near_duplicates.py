"""Which images show the same picture, though their bytes may differ.

A DCT hash alone is not enough for medical images: within 6 of 64 bits it takes 129 pairs of DRIVE's 40 different eyes for
duplicates, because it sees the layout (a bright disc) and not the vessels. So detail is compared: 32 x 32 thumbnails,
high-pass filtered, scaled to even contrast, with what all images of the set share taken out.
Measured on polyps, lesions, ultrasound, cardiac MR, fundus and histology: the same picture recompressed, resized, brightened
or blurred keeps a likeness above 0.9 (0.63 at worst); unrelated pictures of a set stay below 0.48.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.fingerprint.appearance import sum_channels
from autoseg.fingerprint.row_file import RowFile
from autoseg.io.types import Array

_SIDE = 32
_HALVED = 4 * _SIDE  # pixels: an image twice so large is halved first, which is four times as fast and shows the same
_SAME = 0.75  # likeness with the set's common part taken out
_SAME_RAW = 0.90  # likeness without that, for sets too small to have a common part
_SCENE_SCORE = 6.0  # robust deviations above the set's usual likeness; unrelated pairs reached 5.2
_SCENE_LAYOUT = 0.90  # correlation of the plain thumbnails, asked for besides
_ENOUGH = 20  # images, before a common part means anything
_LARGEST_SHARE = 0.2  # a "scene" with more of the set than this is what the set looks like, not a patient
_ROWS, _COLUMNS = 512, 256  # images compared at once
_MOST_PAIRS = 50_000  # all those of 316 equal pictures, or of 10,000 in groups of ten
Thumbnail = npt.NDArray[np.float32]
Item = TypeVar("Item", int, str)


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of indices. same: the same image. scene: much more similar than usual, such as frames of one patient."""

    same: tuple[tuple[int, int], ...]
    scene: tuple[tuple[int, int], ...]


def thumbnail(image: Array, total: Array | None = None) -> Thumbnail | None:
    """(32, 32) gray of an image (C, H, W), zero mean, unit length; None for one that is flat, which is like any other.

    total: `sum_channels` of the image, if already computed.
    """
    # Summed first, so that only one plane is resized.
    total = sum_channels(image) if total is None else total
    height, width = (side // 2 for side in total.shape)
    if min(height, width) >= _HALVED:
        total = cv2.resize(total[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(total, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) / len(image)
    centred = small - small.mean()
    length = float(np.linalg.norm(centred))
    flat = length <= 0.002 * _SIDE * max(float(np.abs(small).max()), 1e-6)
    return None if flat else (centred / length).astype(np.float32)


class ThumbnailIndex:
    """Collects thumbnails, then finds similar images. A context manager; not thread-safe.

    Memory: some MB, and 8 bytes an image; thumbnails and details lie on the disk, 8 KB an image.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """folder: see `RowFile`."""
        self._files = ExitStack()
        self._thumbnails, self._details = (
            self._files.enter_context(RowFile(_SIDE * _SIDE, np.float32, folder)) for _ in range(2)
        )
        self._sum = np.zeros(_SIDE * _SIDE)
        self._places = array("q")
        self._images = 0

    def add(self, small: Thumbnail | None) -> None:
        """The thumbnail of the next image; None for a flat one, which is like no other. Raises AutosegError: full disk."""
        if small is not None:
            self._thumbnails.append(small.ravel())
            self._places.append(self._images)
        self._images += 1

    def find_similar(self, keys: Iterable[str] | None = None) -> SimilarPairs:
        """Which images are alike; time grows with the pairs. keys: of each image; where they are equal, the images are known
        to be equal and make no pair. What hangs together is always found, though not by all its pairs: see `_PairList`."""
        number = len(self._places)
        same, scene = _PairList(number), _PairList(number)
        if number < 2:
            return SimilarPairs((), ())
        pixel_ids = self._pixel_ids(keys)
        self._fill_details()
        mean = (self._sum / number).astype(np.float32) if number >= _ENOUGH else None
        median, spread = self._similarity_statistics(mean) if mean is not None else (0.0, np.inf)
        for start in range(0, number, _ROWS):
            rows = self._details[start : start + _ROWS]
            centred = _centred(rows, mean)
            for first in range(start, number, _COLUMNS):
                columns = self._details[first : first + _COLUMNS]
                similarity = centred @ _centred(columns, mean).T
                is_same = rows @ columns.T >= _SAME_RAW
                if mean is not None:
                    is_same |= similarity >= _SAME
                similarity -= median
                similarity /= spread
                is_scene = similarity >= _SCENE_SCORE
                if not (is_same.any() or is_scene.any()):
                    continue
                corner = np.array((start, first))
                ones, others = np.ogrid[start : start + len(is_same), first : first + is_same.shape[1]]
                is_candidate = (ones < others) & (pixel_ids[ones] != pixel_ids[others])
                same.add(corner + np.argwhere(is_same & is_candidate & same.asks_for(ones, others)))
                is_scene &= ~is_same & is_candidate & scene.asks_for(ones, others)
                scene.add(self._with_correlated_thumbnails(corner + np.argwhere(is_scene)))
        places = np.array(self._places)
        return SimilarPairs(same.named(places), _drop_large_groups(scene.named(places), number))

    def _fill_details(self) -> None:
        # At last and together, which is faster than between the images.
        for start in range(len(self._details), len(self._thumbnails), _COLUMNS):
            for small in self._thumbnails[start : start + _COLUMNS]:
                detail = _detail(small.reshape(_SIDE, _SIDE))
                self._details.append(detail)
                self._sum += detail

    def _pixel_ids(self, keys: Iterable[str] | None) -> npt.NDArray[np.int64]:
        """A number for each thumbnail; equal where the keys are."""
        if keys is None:
            return np.arange(len(self._places))
        numbers: dict[str, int] = {}
        every = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, self._images)
        return np.asarray(every[np.array(self._places)])

    def _with_correlated_thumbnails(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of the pairs (N, 2) whose plain thumbnails correlate."""
        if not len(pairs):
            return pairs
        (first, ones), (second, others) = (np.unique(pairs[:, side], return_inverse=True) for side in (0, 1))
        layout = self._thumbnails[first.tolist()] @ self._thumbnails[second.tolist()].T
        return np.asarray(pairs[layout[ones, others] >= _SCENE_LAYOUT])

    def _similarity_statistics(self, mean: Thumbnail) -> tuple[float, float]:
        """Median and robust deviation of the likeness of pairs, from at most a thousand images."""
        number = len(self._details)
        chosen = np.linspace(0, number - 1, min(number, 1000)).astype(np.int64).tolist()
        similarities = np.empty(len(chosen) * (len(chosen) - 1) // 2, np.float32)
        filled = 0
        for start in range(0, len(chosen), _COLUMNS):
            rows = _centred(self._details[chosen[start : start + _COLUMNS]], mean)
            for first in range(start, len(chosen), _COLUMNS):
                columns = _centred(self._details[chosen[first : first + _COLUMNS]], mean)
                similarity = rows @ columns.T
                part = similarity[np.triu_indices(len(rows), 1)] if first == start else similarity.ravel()
                similarities[filled : filled + part.size] = part
                filled += part.size
        middle = float(np.median(similarities, overwrite_input=True))
        similarities -= middle
        np.abs(similarities, out=similarities)
        return middle, max(1.4826 * float(np.median(similarities, overwrite_input=True)), 1e-3)

    def __enter__(self) -> ThumbnailIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._files.close()


def compare(thumbnails: Iterable[Thumbnail | None], keys: Iterable[str] | None = None) -> SimilarPairs:
    """Which of some images are alike: see `ThumbnailIndex.find_similar`."""
    with ThumbnailIndex() as gallery:
        for small in thumbnails:
            gallery.add(small)
        return gallery.find_similar(keys)


def _detail(small: Thumbnail) -> Thumbnail:
    """High-pass filtered, each place scaled by the contrast around it, flattened to unit length."""
    high = small - cv2.GaussianBlur(small, (0, 0), 1)
    around = np.sqrt(cv2.GaussianBlur(high * high, (0, 0), 2)) + 1e-3 * float(small.std())
    even = (high / around).ravel()
    even -= even.mean()
    return np.asarray(even / max(float(np.linalg.norm(even)), 1e-9), np.float32)


def _centred(details: Array, mean: Thumbnail | None) -> Array:
    """Details (N, 1024) without what all images share, of unit length again. mean: of all details, None to leave them alone."""
    if mean is None:
        return details
    rows = details - mean
    rows /= np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), 1e-6)[:, None]
    return rows


def _drop_large_groups(pairs: tuple[tuple[int, int], ...], images: int) -> tuple[tuple[int, int], ...]:
    too_large = {item for group in connected_groups(pairs) if len(group) > _LARGEST_SHARE * images for item in group}
    return tuple(pair for pair in pairs if pair[0] not in too_large)


def connected_groups(pairs: Iterable[tuple[Item, Item]]) -> list[tuple[Item, ...]]:
    """Sets of items that are connected through pairs: each sorted, and all sorted by their first item."""
    ends = np.array([*pairs])
    if not len(ends):
        return []
    # Loaded where it is needed: most datasets have no pairs.
    from scipy.sparse.csgraph import connected_components

    items, places = np.unique(ends, return_inverse=True)
    _, labels = connected_components(_graph(places.reshape(-1, 2), len(items)), directed=False)
    members: dict[int, list[Item]] = {}
    for item, label in zip(items.tolist(), labels.tolist(), strict=True):
        members.setdefault(label, []).append(item)
    return [tuple(group) for group in members.values()]


class _PairList:
    """Pairs of a set's items. Where there are many more than `most`, a spanning forest of them is kept: it connects the same
    items, and a set that is one picture keeps no square of its number.
    """

    def __init__(self, items: int, most: int = _MOST_PAIRS) -> None:
        self._items, self._limit = items, most + items
        self._parts: list[npt.NDArray[np.int64]] = []
        self._count = 0
        self._labels = np.arange(items)

    def add(self, pairs: npt.NDArray[np.int64]) -> None:
        """pairs: (N, 2) items, the smaller one first."""
        if len(pairs):
            self._parts.append(pairs)
            self._count += len(pairs)
        if self._count > self._limit:
            from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

            graph = _graph(np.concatenate(self._parts), self._items)
            self._parts = [np.column_stack(minimum_spanning_tree(graph).nonzero()).astype(np.int64)]
            self._count = len(self._parts[0])
            _, self._labels = connected_components(graph, directed=False)

    def asks_for(self, ones: Array, others: Array) -> npt.NDArray[np.bool_]:
        """Whether pairs of these items may connect what was not connected, in whatever shape they broadcast to."""
        return np.asarray(self._labels[ones] != self._labels[others])

    def named(self, names: Array) -> tuple[tuple[int, int], ...]:
        """The pairs, sorted, with the names (N,) int in the items' places."""
        if not self._parts:
            return ()
        pairs = sorted(map(tuple, np.concatenate(self._parts).tolist()))
        return tuple((one, other) for one, other in names[np.array(pairs)].tolist())


def _graph(pairs: npt.NDArray[np.int64], items: int) -> Any:
    """SciPy's sparse matrix of the pairs (N, 2)."""
    from scipy.sparse import coo_array

    return coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(items, items)).tocsr()
