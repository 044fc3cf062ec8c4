"""What was read, for who reads it next: decoding a picture costs as much as all else that is done to it."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.io.contents import Image, Label
from autoseg.io.files import read_case, read_label

# Bytes of the disk. What comes after them is decoded again.
_LIMIT = 2 << 30
_NOTHING = np.zeros(0, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    start: int
    size: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Kept:
    """Reads images and masks, and keeps them as they are in a file without a name, which ends with the block.

    Safe to use from several threads; memory holds where each lies. A full disk ends the keeping and nothing else.
    """

    def __init__(self, folder: Path, limit: int = _LIMIT) -> None:
        """folder: on the disk to write to; it is made if need be. limit: bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)
        self._limit = limit
        self._lock = Lock()
        # By text: paths, with all they know of themselves, are three times as large.
        self._known: dict[tuple[str, ...], tuple[Image | Label, _Place]] = {}

    def keep_no_more(self) -> None:
        """What is read from now on is not read again."""
        with self._lock:
            self._limit = 0

    def image(self, paths: Sequence[Path]) -> Image:
        """See `read_case`."""
        key = tuple(map(str, paths))
        found = self._find(key)
        if found is None:
            found = read_case(paths)
            self._keep(key, found)
        assert isinstance(found, Image)
        return found

    def label(self, path: Path) -> Label:
        """See `read_label`."""
        key = (str(path),)
        found = self._find(key)
        if found is None:
            found = read_label(path)
            self._keep(key, found)
        assert isinstance(found, Label)
        return found

    def _find(self, key: tuple[str, ...]) -> Image | Label | None:
        if key not in self._known:
            return None
        read, place = self._known[key]
        array = self._mapped(place).reshape(place.shape)
        return replace(read, array=np.moveaxis(array, -1, 0) if isinstance(read, Image) else array)

    def _mapped(self, place: _Place) -> NDArray[Any]:
        """The numbers as they lie in the file: they are not copied, and are let go with the array."""
        if not place.size:
            return np.zeros(0, place.dtype)
        before = place.start % mmap.ALLOCATIONGRANULARITY
        seen = mmap.mmap(
            self._stream.fileno(), before + place.size, access=mmap.ACCESS_READ, offset=place.start - before
        )
        return np.frombuffer(seen, place.dtype, offset=before, count=place.size // place.dtype.itemsize)

    def _keep(self, key: tuple[str, ...], read: Image | Label) -> None:
        # Interleaved, as most pictures lie in memory: nothing is copied.
        array = np.ascontiguousarray(np.moveaxis(read.array, 0, -1) if isinstance(read, Image) else read.array)
        with self._lock:
            start = self._stream.seek(0, 2)
            if start + array.nbytes > self._limit:
                return
            try:
                self._stream.write(array.data)
                self._stream.flush()
            except OSError:
                self._limit = 0
                return
            place = _Place(start=start, size=array.nbytes, dtype=array.dtype, shape=array.shape)
            self._known[key] = replace(read, array=_NOTHING), place

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()
