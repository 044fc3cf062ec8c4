"""TIFF through tifffile, images and masks alike: every number format and compression, as described by the file's tags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.io.types import UNREADABLE, Array, Decoded, check_size
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from tifffile import TiffPage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 274
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG = (6, 7)


def decode(path: Path) -> Decoded:
    """The first page. Raises AutosegError for several pages of one size, colour models beyond RGB, CMYK and JPEG's, and damage.

    array: (H, W) or (H, W, C), stored values; bool for one bit. Where white is zero, unsigned values are inverted.
    """
    with _first_page(path) as page:
        _check(page, path)
        array = _decode_page(page)
        axes, kind, bits = page.axes, int(page.photometric), int(page.bitspersample)
        palette = _palette(page) if kind == _PALETTE else None
        lossy = int(page.compression) in _JPEG
        orientation = int(page.tags.valueof(_ORIENTATION, default=1))
    if axes not in ("YX", "YXS", "SYX"):
        raise AutosegError(f"{path} is a volume", "autoseg works on 2D images: save each slice as a file of its own")
    array = np.moveaxis(array, 0, 2) if axes == "SYX" else array
    notes: tuple[str, ...] = ()
    if kind == _WHITE_IS_ZERO and array.dtype.kind in "bu" and array.dtype.itemsize <= 2:
        array = ~array if array.dtype == np.bool_ else array.dtype.type((1 << bits) - 1) - array
        notes = ("white is zero: values inverted",)
    elif kind == _CMYK:
        array, notes = _cmyk_to_rgb(array), ("CMYK converted to RGB",)
    return Decoded(
        array=array, notes=notes, orientation=orientation if orientation in range(1, 9) else 1, lossy=lossy, palette=palette
    )


def count_pixels(path: Path) -> int:
    """Rows times columns of the first page, from its tags. Raises AutosegError if they cannot be read."""
    with _first_page(path) as page:
        return int(page.imagelength) * int(page.imagewidth)


@contextmanager
def _first_page(path: Path) -> Iterator[TiffPage]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            _reject_multipage(file.pages, path)
            yield page
    except AutosegError:
        raise
    except Exception as error:  # tifffile and its codecs raise many exceptions for damaged files.
        raise AutosegError(f"{path} cannot be read as a TIFF", UNREADABLE) from error


def _reject_multipage(pages: Any, path: Path) -> None:
    """Smaller pages are thumbnails."""
    sizes = {(page.imagelength, page.imagewidth) for page in (pages[0], pages[1])} if len(pages) > 1 else ()
    if len(sizes) == 1:
        raise AutosegError(f"{path} holds several pages", "autoseg works on 2D images: save each page as a file of its own")


def _check(page: Any, path: Path) -> None:
    """Size, colour model and length, before anything is decoded."""
    check_size(path, page.imagewidth, page.imagelength)
    kind = int(page.photometric)
    supported = kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE) or (kind == _YCBCR and int(page.compression) in _JPEG)
    if not supported and not (kind == _CMYK and page.dtype == np.uint8 and page.samplesperpixel == 4):
        name = getattr(page.photometric, "name", kind)
        raise AutosegError(f"{path} stores its colours as {name}, which autoseg does not read", "save it as gray or RGB")
    if not has_codec(page):
        name = getattr(page.compression, "name", page.compression)
        raise AutosegError(
            f"{path} is compressed with {name}, which no installed codec decodes", "save it with LZW or uncompressed"
        )
    # tifffile fills truncated data of some compressions with zeros.
    end = max((start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > page.parent.filehandle.size:
        raise AutosegError(f"{path} is cut short", UNREADABLE)


def has_codec(page: Any) -> bool:
    """Whether an installed codec can decode the page."""
    import tifffile

    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError:
        return False
    return True


def _decode_page(page: Any) -> Array:
    # Callers run in their own threads. The default read-ahead is 256 MiB.
    return np.asarray(page.asarray(maxworkers=1, buffersize=1 << 24))


def _palette(page: Any) -> Array:
    """(N, 3) uint8."""
    palette: Array = (page.colormap >> 8).astype(np.uint8).T
    return palette


def _cmyk_to_rgb(array: Array) -> Array:
    """(H, W, 3) of (H, W, 4), without a colour profile."""
    inverse = 255 - array.astype(np.uint16)
    rgb: Array = (inverse[..., :3] * inverse[..., 3:] // 255).astype(np.uint8)
    return rgb
