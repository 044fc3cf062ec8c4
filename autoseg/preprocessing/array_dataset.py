"""The arrays of one preprocessing configuration in three flat, memory-mapped .npy files: a crop reads one slice.

    <folder>/images.npy      values of all images one after the other, each as (H, W, C)
    <folder>/labels.npy      uint8 label values, each map as (H, W)
    <folder>/foreground.npy  (N, 2) int32: sampled (row, column) of pixels of each class
    <folder>/index.json      start and shape of each case, hash of the inputs, hashes of the files

The layout is (H, W, C), because OpenCV's augmentation and cropping need interleaved pixels.
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
from autoseg.schema.serde import to_line
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_directory, fast_hash_file, hash_text, read_artefact, write_artefact

Array = NDArray[Any]

# Increase it when the same configuration would give other arrays: older arrays are then made again.
STORE_VERSION = 1
# Sampled pixels of each class and case, spread evenly: patches can then be centred anywhere on the class.
SAMPLES = 256
_HEADER_BYTES = 128
_ARRAYS = _IMAGES, _LABELS, _FOREGROUND = "images.npy", "labels.npy", "foreground.npy"
_INDEX = "index.json"
_REMEDY = "run autoseg_plan_and_preprocess again"


def preprocessing_hash(config: PreprocessingConfig, content_hash: str) -> str:
    """Hash of everything the arrays depend on: configuration, raw data, format version."""
    return hash_text(str(STORE_VERSION), json.dumps(config.hashed(), sort_keys=True), content_hash)


class OutdatedArrays(AutosegError):
    """The arrays were made from other images or masks, or by another plan."""


class ArrayDataset:
    """Read access to preprocessed arrays. Thread-safe; arrays are read-only views of the files."""

    def __init__(self, folder: Path, identity: str, entries: dict[str, ArrayEntry], arrays: tuple[Array, Array, Array]) -> None:
        self.folder = folder
        self.identity = identity
        self._entries = entries
        self._images, self._labels, self._foreground = arrays

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        """Another process opens the files again: a pickled memory map would hold all values."""
        return ArrayDataset.open, (self.folder,)

    @classmethod
    def open(cls, folder: Path, expected_hash: str | None = None, *, verify: bool = False) -> ArrayDataset:
        """Opens the arrays in `folder`.

        expected_hash: the `preprocessing_hash` they must have. verify: also compare the content of all files with the hashes
        in index.json, which reads them once. Raises OutdatedArrays if they were made from other data or by another
        configuration, AutosegError if they are missing or damaged.
        """
        if not (folder / _INDEX).is_file():
            raise AutosegError(f"there is no preprocessed data in {folder}", _REMEDY)
        index = read_artefact(folder / _INDEX, ArrayIndex, _REMEDY)
        if expected_hash is not None and index.identity != expected_hash:
            raise OutdatedArrays(f"the preprocessed data in {folder} was made from other images or by another plan", _REMEDY)
        if verify:
            _verify(folder, index)
        try:
            images, labels, foreground = (np.lib.format.open_memmap(folder / name, "r") for name in _ARRAYS)
        except (OSError, ValueError, EOFError) as error:
            raise AutosegError(f"the preprocessed data in {folder} is damaged: {error}", _REMEDY) from error
        if index.sizes != (images.size, labels.size, len(foreground)):
            raise AutosegError(
                f"the preprocessed data in {folder} is incomplete: the array sizes do not match index.json", _REMEDY
            )
        if labels.dtype != np.uint8 or foreground.shape[1:] != (2,) or foreground.dtype.kind != "i":
            raise AutosegError(f"the preprocessed data in {folder} is damaged: arrays of another type", _REMEDY)
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
        """Label value -> (N, 2) int32 of sampled (row, column), N <= 256. Without background and the ignore label."""
        ranges = self._find(case).foreground
        return {int(value): self._foreground[start : start + count] for value, (start, count) in ranges.items()}

    def shape(self, case: str) -> tuple[int, int, int]:
        """(H, W, C) as stored."""
        return self._find(case).shape

    def original_size(self, case: str) -> tuple[int, int]:
        """(H, W) of the image in its file, before preprocessing."""
        return self._find(case).before

    def _find(self, case: str) -> ArrayEntry:
        entry = self._entries.get(case)
        if entry is None:
            similar = difflib.get_close_matches(case, self._entries, n=1)
            hint = f"did you mean {similar[0]!r}? " if similar else ""
            raise AutosegError(f"there is no case {case!r} in {self.folder}", f"{hint}otherwise {_REMEDY}")
        return entry


class ArrayWriter:
    """Writes cases one after the other; `finish` writes the index. Only the index is held in memory."""

    def __init__(self, folder: Path, dtype: str, ignore: int | None) -> None:
        self._folder = folder
        self._ignore = ignore
        self._entries: dict[str, ArrayEntry] = {}
        self._images = _FlatFile(folder / _IMAGES, np.dtype(dtype))
        self._labels = _FlatFile(folder / _LABELS, np.dtype(np.uint8))
        self._foreground = _FlatFile(folder / _FOREGROUND, np.dtype(np.int32), columns=2)

    def add(self, case: str, image: Array, label: Array, original_size: tuple[int, int]) -> None:
        """image: (H, W, C) of the arrays' dtype. label: (H, W) uint8. original_size: (H, W) in the file."""
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
            before=original_size,
            foreground=ranges,
        )

    def finish(self, identity: str) -> None:
        """Closes the arrays and writes the index."""
        sizes = (self._images.close(), self._labels.close(), self._foreground.close())
        hashes = _content_hashes(self._folder, self._entries)
        write_artefact(
            self._folder / _INDEX, ArrayIndex(identity=identity, sizes=sizes, cases=self._entries, hashes=hashes)
        )

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for file in (self._images, self._labels, self._foreground):
            file.close()


@contextmanager
def array_writer(
    folder: Path, config: PreprocessingConfig, content_hash: str, ignore: int | None = None
) -> Iterator[ArrayWriter]:
    """A writer whose arrays replace `folder` when the block succeeds. After an error, `folder` is unchanged."""
    with (
        atomic_directory(folder, _INDEX, ArrayIndex, (*_ARRAYS, _INDEX)) as temporary,
        ArrayWriter(temporary, config.dtype, ignore) as writer,
    ):
        yield writer
        writer.finish(preprocessing_hash(config, content_hash))


def _content_hashes(folder: Path, entries: dict[str, ArrayEntry]) -> dict[str, str]:
    """File -> hash of its content; under "cases" that of the places in the files."""
    places = (part for name, entry in entries.items() for part in (name, to_line(entry)))
    return {**{name: fast_hash_file(folder / name) for name in _ARRAYS}, "cases": hash_text(*places)}


def _verify(folder: Path, index: ArrayIndex) -> None:
    if not index.hashes:
        raise AutosegError(f"the preprocessed data in {folder} is from an older release, which stored no hashes", _REMEDY)
    try:
        hashes = _content_hashes(folder, index.cases)
    except OSError as error:
        raise AutosegError(f"the preprocessed data in {folder} is damaged: {error}", _REMEDY) from error
    changed = [name if name in _ARRAYS else _INDEX for name, value in hashes.items() if index.hashes.get(name) != value]
    if changed:
        text = ", ".join(changed)
        raise AutosegError(f"the preprocessed data in {folder} is damaged: {text} changed after it was written", _REMEDY)


def sample_foreground(label: Array, ignore: int | None = None) -> dict[int, Array]:
    """(H, W) uint8 -> value -> (N, 2) int32 of (row, column): at most 256 evenly spread pixels of each value except 0."""
    samples: dict[int, Array] = {}
    foreground = np.flatnonzero(label != 0)
    values = label.ravel()[foreground]
    for value in np.flatnonzero(np.bincount(values)):
        if value == ignore:
            continue
        pixels = foreground[values == value]
        if len(pixels) > SAMPLES:
            pixels = pixels[np.linspace(0, len(pixels) - 1, SAMPLES).round().astype(np.int64)]
        samples[int(value)] = np.stack(np.unravel_index(pixels, label.shape), axis=1).astype(np.int32)
    return samples


class _FlatFile:
    """A .npy file of unknown length: a header of fixed size is written last."""

    def __init__(self, path: Path, dtype: np.dtype[Any], columns: int = 0) -> None:
        self.dtype = dtype
        self._columns = columns
        self._count = 0
        self._stream: BinaryIO = path.open("wb")
        self._stream.write(b" " * _HEADER_BYTES)

    def append(self, array: Array) -> int:
        """Appends an array; returns the index of its first element (or row)."""
        start = self._count
        self._stream.write(np.ascontiguousarray(array, self.dtype).data)
        self._count += array.size // (self._columns or 1)
        return start

    def close(self) -> int:
        """Writes the header; returns the number of elements (or rows)."""
        if not self._stream.closed:
            shape = (self._count, self._columns) if self._columns else (self._count,)
            text = str({"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})
            body = text.encode("latin1").ljust(_HEADER_BYTES - 11) + b"\n"
            self._stream.seek(0)
            self._stream.write(np.lib.format.magic(1, 0) + len(body).to_bytes(2, "little") + body)
            self._stream.close()
        return self._count
