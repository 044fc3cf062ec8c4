"""Rows of numbers in a temporary file, to save memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from autoseg.io.types import Array
from autoseg.support.os_errors import os_errors_as_autoseg_errors


class RowFile:
    """Rows of equal length and dtype in an unnamed temporary file. A context manager; not thread-safe."""

    def __init__(self, length: int, dtype: npt.DTypeLike, folder: Path | None = None) -> None:
        """folder: for the file; default: the system's folder for temporary files."""
        self._folder = folder or Path(tempfile.gettempdir())
        with os_errors_as_autoseg_errors(self._folder / "a temporary file"):
            self._stream = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed by __exit__)
        self._length, self._dtype, self._count = length, np.dtype(dtype), 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Array) -> None:
        """Appends a row (length,). Raises AutosegError if the disk is full."""
        with os_errors_as_autoseg_errors(self._folder / "a temporary file"):
            self._stream.write(np.ascontiguousarray(row, self._dtype).data)
        self._count += 1

    def __getitem__(self, indices: slice | Sequence[int]) -> Array:
        """A copy of the rows (number of indices, length)."""
        if not self._count:
            return np.empty((0, self._length), self._dtype)
        with os_errors_as_autoseg_errors(self._folder / "a temporary file"):
            self._stream.flush()
        # Mapped for this access only: the pages of a permanent mapping would count as memory of the process.
        return np.array(np.memmap(self._stream, self._dtype, "r", shape=(self._count, self._length))[indices])

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._stream.close()
