"""Rows of numbers that lie on the disk: what is too much to be held of every image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from autoseg.io.contents import Array
from autoseg.support.files import telling_full_disk

_TOGETHER = 64  # rows that are written at once


class Shelf:
    """Rows of one length and type in a file without a name, which ends with the block. For one thread at a time.

    Read and written plainly: the pages of a mapped file would count as memory of the process.
    """

    def __init__(self, length: int, dtype: npt.DTypeLike, folder: Path | None = None) -> None:
        """folder: on the disk to write to, by default the system's for temporary files."""
        self._where = folder or Path(tempfile.gettempdir())
        self._stream = tempfile.TemporaryFile(dir=self._where, buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._waiting: Array = np.empty((_TOGETHER, length), dtype)
        self._count = self._written = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Array) -> None:
        """Put a row (length,) behind the others. Raises AutosegError when the disk is full."""
        if self._count - self._written == len(self._waiting):
            self._write()
        self._waiting[self._count - self._written] = row
        self._count += 1

    def rows(self, places: range | Iterable[int], into: Array | None = None) -> Array:
        """Rows (number of places, length) in the order of `places`; a range of step 1 is read at once.

        into: an array with at least as many rows, whose first ones are filled and returned.
        """
        self._write()
        if isinstance(places, range) and places.step == 1:
            found = self._made(len(places), into)
            if len(places):
                self._read(places.start, found)
            return found
        listed = list(places)
        found = self._made(len(listed), into)
        for number, place in enumerate(listed):
            self._read(place, found[number : number + 1])
        return found

    def _made(self, number: int, into: Array | None) -> Array:
        length, dtype = self._waiting.shape[1], self._waiting.dtype
        return np.empty((number, length), dtype) if into is None else into[:number]

    def _read(self, start: int, rows: Array) -> None:
        self._stream.seek(start * self._waiting[0].nbytes)
        left = rows.data.cast("B")
        while left:
            read = self._stream.readinto(left)
            if not read:
                raise EOFError(f"{self._where}: a temporary file ended early")
            left = left[read:]

    def _write(self) -> None:
        rows = self._waiting[: self._count - self._written]
        if not len(rows):
            return
        self._stream.seek(self._written * rows[0].nbytes)
        left = rows.data.cast("B")
        with telling_full_disk(self._where / "a temporary file"):
            while left:
                left = left[self._stream.write(left) :]
        self._written = self._count

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._stream.close()
