"""Finds images that show the same picture, although their bytes differ.

A DCT hash is not enough for medical images: with a limit of 6 of 64 bits it reports 129 pairs of DRIVE's 40 different eyes as
duplicates, because it compares the layout (a bright disc), not the vessels. So details are compared: 32 x 32 thumbnails,
high-pass filtered, with equal local contrast, minus the mean of all images of the set.
Measured on polyps, lesions, ultrasound, cardiac MR, fundus and histology: the similarity of a picture and its recompressed,
resized, brightened or blurred copy is above 0.9 (0.63 at worst); that of different pictures of a set is below 0.48.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
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
_MIN_SIDE_TO_HALVE = 4 * _SIDE  # pixels: larger images are halved first: four times as fast, same thumbnail
_SAME = 0.75  # similarity of details minus the set's mean
_SAME_RAW = 0.90  # similarity of details, also for sets that are too small for a mean
_SCENE_SCORE = 6.0  # robust deviations above the set's median similarity; different scenes reached 5.2
_SCENE_LAYOUT = 0.90  # also required: correlation of the unfiltered thumbnails
_MIN_IMAGES = 20  # images for a meaningful mean
_MAX_SCENE_FRACTION = 0.2  # a larger fraction of the set is not one scene: all its images look like that
_ROWS, _COLUMNS = 512, 256  # images compared at once
_SUM_SCALE = 2.0**32  # of details, at most 1, in their sum: exact for two million images
_MAX_PAIRS = 50_000  # all pairs of 316 equal pictures, or of 10,000 pictures in groups of ten
Thumbnail = npt.NDArray[np.float32]
Item = TypeVar("Item", int, str)


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of indices. same: the same image. scene: much more similar than usual, such as frames of one patient."""

    same: tuple[tuple[int, int], ...]
    scene: tuple[tuple[int, int], ...]


def thumbnail(image: Array, total: Array | None = None) -> Thumbnail | None:
    """(32, 32) gray thumbnail of an image (C, H, W), zero mean, unit length; None for a constant image, which has no details.

    total: `sum_channels` of the image, if already computed.
    """
    # Summed first, so that only one plane is resized.
    total = sum_channels(image) if total is None else total
    height, width = (side // 2 for side in total.shape)
    if min(height, width) >= _MIN_SIDE_TO_HALVE:
        total = cv2.resize(total[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(total, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) / len(image)
    centred = small - small.mean()
    length = float(np.linalg.norm(centred))
    flat = length <= 0.002 * _SIDE * max(float(np.abs(small).max()), 1e-6)
    return None if flat else (centred / length).astype(np.float32)


class ThumbnailIndex:
    """Collects thumbnails, then finds similar images. A context manager; not thread-safe.

    Memory: some MB, and 8 bytes per image. Thumbnails and details are on disk, 8 KB per image.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """folder: see `RowFile`."""
        self._files = ExitStack()
        self._thumbnails, self._details = (
            self._files.enter_context(RowFile(_SIDE * _SIDE, np.float32, folder)) for _ in range(2)
        )
        self._sum = np.zeros(_SIDE * _SIDE)
        self._image_numbers = array("q")
        self._images = 0

    def add(self, small: Thumbnail | None) -> None:
        """Add the thumbnail of the next image; None for a constant image. Raises AutosegError if the disk is full."""
        if small is not None:
            self._thumbnails.append(small.ravel())
            self._image_numbers.append(self._images)
        self._images += 1

    def find_similar(self, keys: Iterable[str] | None = None) -> SimilarPairs:
        """Pairs of similar images. Time grows with the square of the number of images.

        keys: one for each image; images with equal keys are known to be equal and form no pair. Every connected group is
        found, but not every pair of it: see `_PairList`.
        """
        count = len(self._image_numbers)
        same, scene = _PairList(count), _PairList(count)
        if count < 2:
            return SimilarPairs((), ())
        keys = None if keys is None else [*keys]
        pixel_ids = self._pixel_ids(keys)
        self._fill_details()
        mean = (self._sum / (_SUM_SCALE * count)).astype(np.float32) if count >= _MIN_IMAGES else None
        median, spread = self._similarity_statistics(mean, keys) if mean is not None else (0.0, np.inf)
        for start in range(0, count, _ROWS):
            rows = self._details[start : start + _ROWS]
            centred = _centred(rows, mean)
            for first in range(start, count, _COLUMNS):
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
                offset = np.array((start, first))
                first_index, second_index = np.ogrid[start : start + len(is_same), first : first + is_same.shape[1]]
                is_candidate = (first_index < second_index) & (pixel_ids[first_index] != pixel_ids[second_index])
                same.add(offset + np.argwhere(is_same & is_candidate & same.may_connect(first_index, second_index)))
                is_scene &= ~is_same & is_candidate & scene.may_connect(first_index, second_index)
                scene.add(self._with_correlated_thumbnails(offset + np.argwhere(is_scene)))
        image_numbers = np.array(self._image_numbers)
        return SimilarPairs(same.with_names(image_numbers), _drop_large_groups(scene.with_names(image_numbers), count))

    def _fill_details(self) -> None:
        # All together at the end, which is faster than after each image.
        for start in range(len(self._details), len(self._thumbnails), _COLUMNS):
            for small in self._thumbnails[start : start + _COLUMNS]:
                detail = _detail(small.reshape(_SIDE, _SIDE))
                self._details.append(detail)
                # Whole numbers, whose sum does not depend on the order of the images.
                self._sum += np.rint(detail * _SUM_SCALE)

    def _pixel_ids(self, keys: Sequence[str] | None) -> npt.NDArray[np.int64]:
        """A number for each thumbnail, equal for equal keys."""
        if keys is None:
            return np.arange(len(self._image_numbers))
        numbers: dict[str, int] = {}
        all_ids = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, self._images)
        return np.asarray(all_ids[np.array(self._image_numbers)])

    def _with_correlated_thumbnails(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The pairs (N, 2) whose unfiltered thumbnails correlate."""
        if not len(pairs):
            return pairs
        (first, first_index), (second, second_index) = (np.unique(pairs[:, side], return_inverse=True) for side in (0, 1))
        layout = self._thumbnails[first.tolist()] @ self._thumbnails[second.tolist()].T
        return np.asarray(pairs[layout[first_index, second_index] >= _SCENE_LAYOUT])

    def _similarity_statistics(self, mean: Thumbnail, keys: Sequence[str] | None) -> tuple[float, float]:
        """Median and robust deviation of the similarity of pairs, from at most a thousand images, drawn by their keys: the same
        ones in any order."""
        count = len(self._details)
        ordered = range(count) if keys is None else sorted(range(count), key=lambda place: keys[self._image_numbers[place]])
        sample = [ordered[place] for place in np.linspace(0, count - 1, min(count, 1000)).astype(np.int64)]
        similarities = np.empty(len(sample) * (len(sample) - 1) // 2, np.float32)
        filled = 0
        for start in range(0, len(sample), _COLUMNS):
            rows = _centred(self._details[sample[start : start + _COLUMNS]], mean)
            for first in range(start, len(sample), _COLUMNS):
                columns = _centred(self._details[sample[first : first + _COLUMNS]], mean)
                similarity = rows @ columns.T
                part = similarity[np.triu_indices(len(rows), 1)] if first == start else similarity.ravel()
                similarities[filled : filled + part.size] = part
                filled += part.size
        median = float(np.median(similarities, overwrite_input=True))
        similarities -= median
        np.abs(similarities, out=similarities)
        return median, max(1.4826 * float(np.median(similarities, overwrite_input=True)), 1e-3)

    def __enter__(self) -> ThumbnailIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._files.close()


def compare(thumbnails: Iterable[Thumbnail | None], keys: Iterable[str] | None = None) -> SimilarPairs:
    """Pairs of similar images; see `ThumbnailIndex.find_similar`."""
    with ThumbnailIndex() as index:
        for small in thumbnails:
            index.add(small)
        return index.find_similar(keys)


def _detail(small: Thumbnail) -> Thumbnail:
    """The thumbnail (1024,), high-pass filtered, divided by its local contrast, unit length."""
    high = small - cv2.GaussianBlur(small, (0, 0), 1)
    local_contrast = np.sqrt(cv2.GaussianBlur(high * high, (0, 0), 2)) + 1e-3 * float(small.std())
    normalised = (high / local_contrast).ravel()
    normalised -= normalised.mean()
    return np.asarray(normalised / max(float(np.linalg.norm(normalised)), 1e-9), np.float32)


def _centred(details: Array, mean: Thumbnail | None) -> Array:
    """Details (N, 1024) minus `mean`, unit length. mean: of all details; None: details are returned unchanged."""
    if mean is None:
        return details
    rows = details - mean
    rows /= np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), 1e-6)[:, None]
    return rows


def _drop_large_groups(pairs: tuple[tuple[int, int], ...], images: int) -> tuple[tuple[int, int], ...]:
    too_large = {item for group in connected_groups(pairs) if len(group) > _MAX_SCENE_FRACTION * images for item in group}
    return tuple(pair for pair in pairs if pair[0] not in too_large)


def connected_groups(pairs: Iterable[tuple[Item, Item]]) -> list[tuple[Item, ...]]:
    """Groups of items that are connected by pairs; items and groups are sorted."""
    ends = np.array([*pairs])
    if not len(ends):
        return []
    # Imported here, because most datasets have no pairs.
    from scipy.sparse.csgraph import connected_components

    items, positions = np.unique(ends, return_inverse=True)
    _, labels = connected_components(_graph(positions.reshape(-1, 2), len(items)), directed=False)
    members: dict[int, list[Item]] = {}
    for item, label in zip(items.tolist(), labels.tolist(), strict=True):
        members.setdefault(label, []).append(item)
    return [tuple(group) for group in members.values()]


class _PairList:
    """Pairs of items. If there are many more than `most`, only a spanning forest is kept: it connects the same items, so memory
    does not grow with the square of the number of equal images.
    """

    def __init__(self, items: int, most: int = _MAX_PAIRS) -> None:
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

    def may_connect(self, first_index: Array, second_index: Array) -> npt.NDArray[np.bool_]:
        """Whether pairs of these items may connect groups that were not connected. The index arrays are broadcast."""
        return np.asarray(self._labels[first_index] != self._labels[second_index])

    def with_names(self, names: Array) -> tuple[tuple[int, int], ...]:
        """The pairs, sorted, with items replaced by their names (N,) int."""
        if not self._parts:
            return ()
        pairs = sorted(map(tuple, np.concatenate(self._parts).tolist()))
        return tuple((first, second) for first, second in names[np.array(pairs)].tolist())


def _graph(pairs: npt.NDArray[np.int64], items: int) -> Any:
    """SciPy's sparse matrix of the pairs (N, 2)."""
    from scipy.sparse import coo_array

    # SciPy 1.15, the last one for Python 3.10, takes only short indices for spanning trees.
    short = pairs.astype(np.int32)
    return coo_array((np.ones(len(pairs)), (short[:, 0], short[:, 1])), shape=(items, items)).tocsr()
