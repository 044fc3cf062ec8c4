"""What was read, for who reads it next: decoding a picture costs as much as all else that is done to it."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
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
    file: int
    start: int
    size: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


Places = dict[tuple[str, ...], tuple[Image | Label, _Place]]


class Kept:
    """Reads images and masks, and keeps them as they are in files without a name, which end with the block.

    Safe to use from several threads; memory holds where each lies. A full disk ends the keeping and nothing else. There is a
    file for each process that may work side by side: copies of this one choose theirs with `write_to`, and tell their `news`.
    """

    def __init__(self, folder: Path, limit: int = _LIMIT, processes: int = 1) -> None:
        """folder: on the disk to write to; it is made if need be. limit: bytes, of all files together."""
        folder.mkdir(parents=True, exist_ok=True)
        self._files = ExitStack()
        self._streams = [self._files.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(processes)]  # noqa: SIM115
        self._own = 0
        self._limit = limit
        self._lock = Lock()
        # By text: paths, with all they know of themselves, are three times as large.
        self._known: Places = {}
        self._news: Places = {}

    def keep_no_more(self) -> None:
        """What is read from now on is not read again."""
        with self._lock:
            self._limit = 0

    def write_to(self, number: int) -> None:
        """Keep in the file of a process, 0 to `processes` - 1, from now on; without one, nothing is kept."""
        self._own = number
        if number >= len(self._streams):
            self.keep_no_more()

    def news(self) -> Places:
        """What has been kept or heard of since the last call, for the process this one is a copy of to `hear`."""
        with self._lock:
            news, self._news = self._news, {}
        return news

    def hear(self, news: Places) -> None:
        """What a copy of this process has kept."""
        with self._lock:
            self._known.update(news)
            self._news.update(news)

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
            self._streams[place.file].fileno(), before + place.size, access=mmap.ACCESS_READ, offset=place.start - before
        )
        return np.frombuffer(seen, place.dtype, offset=before, count=place.size // place.dtype.itemsize)

    def _keep(self, key: tuple[str, ...], read: Image | Label) -> None:
        # Interleaved, as most pictures lie in memory: nothing is copied.
        array = np.ascontiguousarray(np.moveaxis(read.array, 0, -1) if isinstance(read, Image) else read.array)
        with self._lock:
            # The files know what other processes have kept.
            if sum(os.fstat(one.fileno()).st_size for one in self._streams) + array.nbytes > self._limit:
                return
            stream = self._streams[self._own]
            start = stream.seek(0, 2)
            try:
                stream.write(array.data)
                stream.flush()
            except OSError:
                self._limit = 0
                return
            place = _Place(file=self._own, start=start, size=array.nbytes, dtype=array.dtype, shape=array.shape)
            self._known[key] = self._news[key] = replace(read, array=_NOTHING), place

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._files.close()
