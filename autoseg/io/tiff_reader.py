"""Reads TIFF files that are too large to decode at once, row by row."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import autoseg.io.raster as raster
import autoseg.io.tiff as tiff
from autoseg.io.tiff_pages import image_page
from autoseg.io.types import UNREADABLE, Array
from autoseg.support.errors import AutosegError
from autoseg.support.pixel_limit import check_pixels

_ORIENTATION = 274
_TIFF = (".tif", ".tiff")
_SEPARATE = 2  # PlanarConfiguration: one plane for each band
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
        self._kind = tiff.photometric(page)
        self._palette = tiff.palette(page) if self._kind == tiff.PALETTE else None
        self._bands = int(page.samplesperpixel)
        self.size = (int(page.imagelength), int(page.imagewidth))
        self.channels = self._bands if self._palette is None else 3
        self._segments: dict[int, Array] = {}

    @classmethod
    def open(cls, path: Path) -> TiffRows | None:
        """None if the file is not an unrotated TIFF of gray, palette or RGB pixels; it must then be decoded at once.

        Raises AutosegError for more pixels than may be read by rows (see `pixel_limit`).
        """
        import tifffile

        if path.suffix.lower() not in _TIFF:
            return None
        file: Any = None
        try:
            file = tifffile.TiffFile(path)
            page: Any = image_page(file, path)[0]
            rows = cls(path, file, page) if _is_read_by_rows(page) else None
        except Exception:  # tifffile raises many exceptions for damaged files; `read_image` tells what is wrong.
            rows = None
        if rows is None:
            if file is not None:
                file.close()
            return None
        try:
            check_pixels(path, rows.size[1], rows.size[0], streamed=True)
        except AutosegError:
            file.close()
            raise
        return rows

    def rows(self, start: int, stop: int) -> Array:
        """(stop - start, W, C). Raises AutosegError for damaged parts."""
        try:
            values = self._read_contiguous(start, stop) if self._page.is_contiguous else self._read_segments(start, stop)
        except MemoryError:
            raise
        except Exception as error:  # Codecs raise many exceptions for damaged data.
            raise AutosegError(f"{self._path} cannot be read: {error}", UNREADABLE) from error
        if self._palette is not None:
            return self._palette[values[..., 0]]
        if self._kind == tiff.WHITE_IS_ZERO:
            return tiff.white_is_zero(values, int(self._page.bitspersample), 0, mask=False)[0]
        return values

    def __enter__(self) -> TiffRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def _planes(self) -> int:
        """Number of planes that are stored one after the other; 1 if the bands are interleaved."""
        return self._bands if int(self._page.planarconfig) == _SEPARATE else 1

    def _read_contiguous(self, start: int, stop: int) -> Array:
        kind = self._page.dtype.newbyteorder(self._file.byteorder)
        bands = self._bands // self._planes
        width, height = self.size[1] * bands, self.size[0]
        planes = []
        for plane in range(self._planes):
            self._file.filehandle.seek(self._page.dataoffsets[0] + (plane * height + start) * width * kind.itemsize)
            values = np.frombuffer(self._file.filehandle.read((stop - start) * width * kind.itemsize), kind)
            planes.append(values.reshape(stop - start, self.size[1], bands))
        joined = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return joined.astype(kind.newbyteorder("="), copy=False)

    def _read_segments(self, start: int, stop: int) -> Array:
        page = self._page
        height = int(page.tilelength) if page.is_tiled else int(page.rowsperstrip)
        width = int(page.tilewidth) if page.is_tiled else self.size[1]
        across, down = -(-self.size[1] // width), -(-self.size[0] // height)
        values = np.empty((stop - start, self.size[1], self._bands), page.dtype)
        first, last = start // height * across, ((stop - 1) // height + 1) * across
        needed = {plane * across * down + place for plane in range(self._planes) for place in range(first, last)}
        self._segments = {index: segment for index, segment in self._segments.items() if index in needed}
        for index in sorted(needed):
            if index not in self._segments:
                self._segments[index] = self._decode_segment(index, (height, width))
            plane, place = divmod(index, across * down)
            segment, top, left = self._segments[index], place // across * height, place % across * width
            upper, lower = max(start, top), min(stop, top + len(segment), self.size[0])
            right = min(left + segment.shape[1], self.size[1])
            bands = slice(plane, plane + 1) if self._planes > 1 else slice(None)
            values[upper - start : lower - start, left:right, bands] = segment[upper - top : lower - top, : right - left]
        return values

    def _decode_segment(self, index: int, size: tuple[int, int]) -> Array:
        page, handle = self._page, self._file.filehandle
        if not page.databytecounts[index]:
            return np.zeros((*size, self._bands // self._planes), page.dtype)
        decode, tables = page.decode, page.jpegtables  # Both read from the file when they are asked for first.
        handle.seek(page.dataoffsets[index])
        data, _, shape = decode(handle.read(page.databytecounts[index]), index, jpegtables=tables)
        return np.asarray(data[0, : shape[1], : shape[2]])


def _is_read_by_rows(page: Any) -> bool:
    kind = tiff.photometric(page)
    jpeg = kind == tiff.YCBCR and int(page.compression) in tiff.JPEG  # Decoded to RGB; the usual one of scanned slides.
    supported = kind in (tiff.WHITE_IS_ZERO, tiff.BLACK_IS_ZERO, tiff.RGB, tiff.PALETTE) or jpeg
    supported = supported and page.imagedepth == 1 and tiff.has_codec(page) and page.tags.valueof(_ORIENTATION, default=1) == 1
    bands = {tiff.RGB: 3, tiff.YCBCR: 3}.get(kind or 0, 1)
    supported = supported and str(page.dtype) in _DTYPES and page.bitspersample % 8 == 0 and page.samplesperpixel == bands
    if kind == tiff.PALETTE:
        supported = supported and str(page.dtype) == "uint8"
    return bool(supported)
