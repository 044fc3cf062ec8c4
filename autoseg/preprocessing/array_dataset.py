"""All arrays of one preparation in three flat .npy files, memory-mapped: a crop costs a slice, and memory stays flat.

    <folder>/images.npy      values of all images one after the other, each as (H, W, C)
    <folder>/labels.npy      uint8 label values, each map as (H, W)
    <folder>/foreground.npy  (N, 2) int32: sampled (row, column) of pixels of each class
    <folder>/index.json      where each case begins, its shape, what the store was made from

(H, W, C) and not (C, H, W): OpenCV's augmentation and cropping want interleaved pixels.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from autoseg.schema.arrays import ArrayEntry, ArrayIndex
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_directory, hash_text, read_artefact, write_artefact

Array = NDArray[Any]

# Raised whenever arrays of the same preparation would come out differently, so that stores made before are made anew.
STORE_VERSION = 1
# Pixels kept of each class and case, evenly over the class: enough for a patch to land anywhere on it.
SAMPLES = 256
_HEADER = 128
_AGAIN = "run autoseg_plan_and_preprocess again"


def identity(preparation: PreprocessingConfig, content_hash: str) -> str:
    """Hash of all that decides the arrays: the preparation, the raw data, this format."""
    return hash_text(str(STORE_VERSION), json.dumps(preparation.hashed(), sort_keys=True), content_hash)


class ArrayDataset:
    """Read access. Safe to use from several threads; arrays are read-only views of the files."""

    def __init__(self, folder: Path, identity: str, entries: dict[str, ArrayEntry], arrays: tuple[Array, Array, Array]) -> None:
        self.folder = folder
        self.identity = identity
        self._entries = entries
        self._images, self._labels, self._foreground = arrays

    @classmethod
    def open(cls, folder: Path, expected: str | None = None) -> ArrayDataset:
        """The store in `folder`.

        expected: the identity it must have (see `identity`). Raises AutosegError where the store is missing, not whole,
        or made from other data or another preparation.
        """
        if not (folder / "index.json").is_file():
            raise AutosegError(f"there is no prepared data in {folder}", _AGAIN)
        index = read_artefact(folder / "index.json", ArrayIndex, _AGAIN)
        try:
            names = ("images.npy", "labels.npy", "foreground.npy")
            images, labels, foreground = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in names)
        except (OSError, ValueError) as error:
            raise AutosegError(f"the prepared data in {folder} is not whole: {error}", _AGAIN) from error
        if index.sizes != (images.size, labels.size, len(foreground)):
            raise AutosegError(f"the prepared data in {folder} is not whole: the arrays do not fit index.json", _AGAIN)
        if expected is not None and index.identity != expected:
            raise AutosegError(f"the prepared data in {folder} was made from other images or by another plan", _AGAIN)
        return cls(folder, index.identity, index.cases, (images, labels, foreground))

    @property
    def cases(self) -> tuple[str, ...]:
        """Case names, in the order of the files."""
        return tuple(self._entries)

    def image(self, case: str) -> Array:
        """(H, W, C) uint8, uint16 or float32."""
        entry = self._find(case)
        height, width, channels = entry.shape
        return self._images[entry.image : entry.image + height * width * channels].reshape(entry.shape)

    def label(self, case: str) -> Array:
        """(H, W) uint8 of label values."""
        entry = self._find(case)
        height, width, _ = entry.shape
        return self._labels[entry.label : entry.label + height * width].reshape(height, width)

    def foreground(self, case: str) -> dict[int, Array]:
        """Label value -> (N, 2) int32 of sampled (row, column), N at most 256; background and the ignore label have none."""
        ranges = self._find(case).foreground
        return {int(value): self._foreground[first : first + count] for value, (first, count) in ranges.items()}

    def shape(self, case: str) -> tuple[int, int, int]:
        """(H, W, C) as stored."""
        return self._find(case).shape

    def shape_before(self, case: str) -> tuple[int, int]:
        """(H, W) of the image in its file."""
        return self._find(case).before

    def _find(self, case: str) -> ArrayEntry:
        entry = self._entries.get(case)
        if entry is None:
            near = difflib.get_close_matches(case, self._entries, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise AutosegError(f"there is no case {case!r} in {self.folder}", f"{hint}otherwise {_AGAIN}")
        return entry


class StoreWriter:
    """Cases one after the other into a folder; `finish` makes it a store. Memory holds the index only."""

    def __init__(self, folder: Path, dtype: str, ignore: int | None) -> None:
        self._folder = folder
        self._ignore = ignore
        self._entries: dict[str, ArrayEntry] = {}
        self._images = _FlatFile(folder / "images.npy", np.dtype(dtype))
        self._labels = _FlatFile(folder / "labels.npy", np.dtype(np.uint8))
        self._foreground = _FlatFile(folder / "foreground.npy", np.dtype(np.int32), columns=2)

    def add(self, case: str, image: Array, label: Array, before: tuple[int, int]) -> None:
        """image: (H, W, C) of the store's type. label: (H, W) uint8. before: (H, W) in the file."""
        assert image.dtype == self._images.dtype, f"{case}: {image.dtype}"
        assert label.dtype == np.uint8 and label.shape == image.shape[:2], f"{case}: {label.dtype} {label.shape}"
        assert case not in self._entries, case
        height, width, channels = image.shape
        samples = sample_foreground(label, self._ignore)
        ranges = {str(value): (self._foreground.append(points), len(points)) for value, points in samples.items()}
        self._entries[case] = ArrayEntry(
            image=self._images.append(image),
            label=self._labels.append(label),
            shape=(height, width, channels),
            before=before,
            foreground=ranges,
        )

    def finish(self, identity: str) -> None:
        """Close the arrays and write the index."""
        sizes = (self._images.close(), self._labels.close(), self._foreground.close())
        index = ArrayIndex(identity=identity, sizes=sizes, cases=self._entries)
        write_artefact(self._folder / "index.json", index)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for file in (self._images, self._labels, self._foreground):
            file.close()


@contextmanager
def writing(
    folder: Path, preparation: PreprocessingConfig, content_hash: str, ignore: int | None = None
) -> Iterator[StoreWriter]:
    """A writer whose store takes the place of `folder` when the block ends well; else nothing is left behind."""
    with atomic_directory(folder) as beside, StoreWriter(beside, preparation.dtype, ignore) as writer:
        yield writer
        writer.finish(identity(preparation, content_hash))


def sample_foreground(label: Array, ignore: int | None = None) -> dict[int, Array]:
    """(H, W) uint8 -> value -> (N, 2) int32 of (row, column): at most 256 pixels of each value but 0, evenly spread."""
    samples: dict[int, Array] = {}
    marked = np.flatnonzero(label != 0)
    values = label.ravel()[marked]
    for value in np.flatnonzero(np.bincount(values)):
        if value == ignore:
            continue
        places = marked[values == value]
        if len(places) > SAMPLES:
            places = places[np.linspace(0, len(places) - 1, SAMPLES).round().astype(np.int64)]
        samples[int(value)] = np.stack(np.unravel_index(places, label.shape), axis=1).astype(np.int32)
    return samples


class _FlatFile:
    """A .npy file whose length is known at the end only: its header has a fixed size and is written last."""

    def __init__(self, path: Path, dtype: np.dtype[Any], columns: int = 0) -> None:
        self.dtype = dtype
        self._columns = columns
        self._count = 0
        self._stream: BinaryIO = path.open("wb")
        self._stream.write(b" " * _HEADER)

    def append(self, array: Array) -> int:
        """Add an array; returns the element (or row) at which it begins."""
        first = self._count
        self._stream.write(np.ascontiguousarray(array, self.dtype).data)
        self._count += array.size // (self._columns or 1)
        return first

    def close(self) -> int:
        """Write the header; returns the number of elements (or rows)."""
        if not self._stream.closed:
            shape = (self._count, self._columns) if self._columns else (self._count,)
            text = str({"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})
            body = text.encode("latin1").ljust(_HEADER - 11) + b"\n"
            self._stream.seek(0)
            self._stream.write(np.lib.format.magic(1, 0) + len(body).to_bytes(2, "little") + body)
            self._stream.close()
        return self._count
