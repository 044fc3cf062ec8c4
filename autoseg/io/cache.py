"""Caches decoded images and masks on disk for later steps of one command, since decoding is a large part of its cost."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any, TypeVar

import numpy as np

from autoseg.io.files import read_case, read_label
from autoseg.io.types import Array, Image, Label

_LIMIT = 2 << 30  # bytes
_EMPTY = np.zeros(0, np.uint8)
R = TypeVar("R", Image, Label)


class DecodedImageCache:
    """Reads images and masks, and caches their pixels in a temporary file until the `with` block ends.

    Thread-safe. Files beyond `limit`, or where nothing can be written, are not cached and are decoded again.
    """

    def __init__(self, folder: Path, limit: int = _LIMIT) -> None:
        """folder: where to write; created if missing. limit: bytes."""
        self._stream: IO[bytes]
        self._limit = limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)
        except OSError:
            self._stream, self._limit = io.BytesIO(), 0
        self._lock = Lock()
        # Paths as text -> (image or label without pixels, arguments of np.memmap). Path objects would be three times as large.
        self._entries: dict[tuple[str, ...], tuple[Any, dict[str, Any]]] = {}

    def stop_caching(self) -> None:
        """Stop caching: files read from now on are not read again."""
        with self._lock:
            self._limit = 0

    def image(self, paths: Sequence[Path]) -> Image:
        """See `read_case`."""
        return self._get(tuple(map(str, paths)), lambda: read_case(paths))

    def label(self, path: Path) -> Label:
        """See `read_label`."""
        return self._get((str(path),), lambda: read_label(path))

    def _get(self, key: tuple[str, ...], read: Callable[[], R]) -> R:
        if key not in self._entries:
            decoded = read()
            self._store(key, decoded)
            return decoded
        header, location = self._entries[key]
        with self._lock:
            pixels: Array = np.asarray(np.memmap(self._stream, mode="r", **location))
        cached: R = replace(header, array=np.moveaxis(pixels, -1, 0) if isinstance(header, Image) else pixels)
        return cached

    def _store(self, key: tuple[str, ...], decoded: Image | Label) -> None:
        # Interleaved, as most pictures are in memory: nothing is copied.
        pixels = np.ascontiguousarray(np.moveaxis(decoded.array, 0, -1) if isinstance(decoded, Image) else decoded.array)
        with self._lock:
            offset = self._stream.seek(0, 2)
            if not pixels.size or offset + pixels.nbytes > self._limit:
                return
            try:
                self._stream.write(pixels.data)
                self._stream.flush()
            except OSError:
                self._limit = 0
                return
            location = {"offset": offset, "dtype": pixels.dtype, "shape": pixels.shape}
            self._entries[key] = replace(decoded, array=_EMPTY), location

    def __enter__(self) -> DecodedImageCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # A full disk, of which nothing more is wanted.
            self._stream.close()
