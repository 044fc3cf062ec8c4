"""Reads TIFF files that are too large to decode at once, row by row."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import autoseg.io.raster as raster
import autoseg.io.tiff as tiff
from autoseg.io.tiff_pages import image_page
from autoseg.io.types import UNREADABLE, Array
from autoseg.support.errors import AutosegError

_ORIENTATION = 274
_TIFF = (".tif", ".tiff")
_DTYPES = ("uint8", "uint16", "float32")


def count_pixels(path: Path) -> int:
    """Rows times columns of a picture, from its header; 0 for other or unreadable files."""
    try:
        return raster.count_pixels(path) if path.suffix.lower() in raster.SUFFIXES else 0
    except AutosegError:
        return 0


class ArrayRows:
    """Rows of an array (C, H, W) in memory."""

    def __init__(self, array: Array) -> None:
        self._pixels = np.moveaxis(array, 0, 2)
        self.size = (int(array.shape[1]), int(array.shape[2]))
        self.channels = int(array.shape[0])

    def rows(self, start: int, stop: int) -> Array:
        """(stop - start, W, C)."""
        return self._pixels[start:stop]


class TiffRows:
    """Rows of the page with a TIFF's image; only the strips or tiles of these rows are decoded. Use it in a `with` block."""

    def __init__(self, path: Path, file: Any, page: Any) -> None:
        self._path = path
        self._file = file
        self._page = page
        self.size = (int(self._page.imagelength), int(self._page.imagewidth))
        self.channels = int(self._page.samplesperpixel)
        self._segments: dict[int, Array] = {}

    @classmethod
    def open(cls, path: Path) -> TiffRows | None:
        """None if the file is not an unrotated, interleaved gray or RGB TIFF; it must then be decoded at once."""
        import tifffile

        if path.suffix.lower() not in _TIFF:
            return None
        file: Any = None
        try:
            file = tifffile.TiffFile(path)
            page: Any = image_page(file, path)[0]
        except (AutosegError, tifffile.TiffFileError, OSError, ValueError, IndexError):
            if file is not None:
                file.close()
            return None  # `read_image` tells what is wrong.
        supported = int(page.photometric) in (1, 2) and int(page.planarconfig) == 1 and page.imagedepth == 1
        supported = supported and tiff.has_codec(page) and page.tags.valueof(_ORIENTATION, default=1) == 1
        if supported and str(page.dtype) in _DTYPES and page.samplesperpixel in (1, 3) and page.bitspersample % 8 == 0:
            return cls(path, file, page)
        file.close()
        return None

    def rows(self, start: int, stop: int) -> Array:
        """(stop - start, W, C). Raises AutosegError for damaged parts."""
        try:
            return self._read_contiguous(start, stop) if self._page.is_contiguous else self._read_segments(start, stop)
        except (OSError, ValueError, IndexError, RuntimeError, zlib.error) as error:
            raise AutosegError(f"{self._path} cannot be read: {error}", UNREADABLE) from error

    def __enter__(self) -> TiffRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def _read_contiguous(self, start: int, stop: int) -> Array:
        width, kind = self.size[1] * self.channels, self._page.dtype.newbyteorder(self._file.byteorder)
        handle = self._file.filehandle
        handle.seek(self._page.dataoffsets[0] + start * width * kind.itemsize)
        values = np.frombuffer(handle.read((stop - start) * width * kind.itemsize), kind)
        return values.reshape(stop - start, self.size[1], self.channels).astype(kind.newbyteorder("="), copy=False)

    def _read_segments(self, start: int, stop: int) -> Array:
        page = self._page
        height = int(page.tilelength) if page.is_tiled else int(page.rowsperstrip)
        width = int(page.tilewidth) if page.is_tiled else self.size[1]
        across = -(-self.size[1] // width)
        values = np.empty((stop - start, self.size[1], self.channels), page.dtype)
        first, last = start // height, (stop - 1) // height
        needed = {down * across + place for down in range(first, last + 1) for place in range(across)}
        self._segments = {index: segment for index, segment in self._segments.items() if index in needed}
        for index in sorted(needed):
            if index not in self._segments:
                self._segments[index] = self._decode_segment(index, (height, width))
            segment, top, left = self._segments[index], index // across * height, index % across * width
            upper, lower = max(start, top), min(stop, top + len(segment), self.size[0])
            right = min(left + segment.shape[1], self.size[1])
            values[upper - start : lower - start, left:right] = segment[upper - top : lower - top, : right - left]
        return values

    def _decode_segment(self, index: int, size: tuple[int, int]) -> Array:
        page, handle = self._page, self._file.filehandle
        if not page.databytecounts[index]:
            return np.zeros((*size, self.channels), page.dtype)
        handle.seek(page.dataoffsets[index])
        data, _, shape = page.decode(handle.read(page.databytecounts[index]), index, jpegtables=page.jpegtables)
        return np.asarray(data[0, : shape[1], : shape[2]])
