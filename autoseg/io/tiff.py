"""TIFF through tifffile, images and masks alike: every number format and compression, as described by the file's tags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.io.tiff_pages import image_page
from autoseg.io.types import UNREADABLE, Array, Decoded
from autoseg.support.errors import AutosegError
from autoseg.support.pixel_limit import check_pixels

if TYPE_CHECKING:
    from tifffile import TiffPage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, _CMYK, YCBCR = 0, 1, 2, 3, 5, 6
JPEG = (6, 7)
_ALPHA = (1, 2)  # ExtraSamples: associated, unassociated; 0 is unspecified
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex integer", 6: "complex"}


def decode(path: Path, mask: bool = False) -> Decoded:
    """The page that holds the image. Raises AutosegError for several images, for kinds that are not read, and for damage.

    array: (H, W) or (H, W, C), stored values; bool for one bit. Where white is zero, images are inverted. mask: class ids stay
    as they are stored, since ImageJ marks masks that it shows with an inverting table so; one bit is inverted in masks too, as
    all programs do.
    """
    with _open_image_page(path) as (page, notes):
        _check(page, path, mask)
        array = _decode_page(page)
        axes, kind, bits = page.axes, photometric(page), int(page.bitspersample)
        colours = palette(page) if kind == PALETTE else None
        extras = tuple(int(extra) for extra in page.extrasamples)
        lossy = int(page.compression) in JPEG
        orientation = int(page.tags.valueof(_ORIENTATION, default=1))
    if axes not in ("YX", "YXS", "SYX"):
        raise AutosegError(f"{path} is a volume", "autoseg works on 2D images: save each slice as a file of its own")
    array = np.moveaxis(array, 0, 2) if axes == "SYX" else array
    if kind == WHITE_IS_ZERO:
        array, inversion_notes = white_is_zero(array, bits, len(extras), mask)
        notes += inversion_notes
    elif kind == _CMYK:
        array, notes = _cmyk_to_rgb(array), (*notes, "CMYK converted to RGB")
    elif kind is None:
        notes += ("no tag says whether zero is black or white: zero taken as black",)
    return Decoded(
        array=array,
        notes=notes,
        orientation=orientation if orientation in range(1, 9) else 1,
        lossy=lossy,
        palette=colours,
        alpha=_alpha_band(array, extras, kind),
    )


def count_pixels(path: Path) -> int:
    """Rows times columns of the page that holds the image, from its tags. Raises AutosegError if they cannot be read."""
    with _open_image_page(path) as (page, _):
        return int(page.imagelength) * int(page.imagewidth)


@contextmanager
def _open_image_page(path: Path) -> Iterator[tuple[TiffPage, tuple[str, ...]]]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            yield image_page(file, path)
    except (AutosegError, MemoryError):
        raise
    except Exception as error:  # tifffile and its codecs raise many exceptions for damaged files.
        raise AutosegError(f"{path} cannot be read as a TIFF", UNREADABLE) from error


def photometric(page: Any) -> int | None:
    """None without the tag; tifffile would say white is zero."""
    return int(page.photometric) if _PHOTOMETRIC in page.tags else None


def _check(page: Any, path: Path, mask: bool) -> None:
    """Size, colour model, number format, compression and length, before anything is decoded."""
    check_pixels(path, page.imagewidth, page.imagelength)
    kind = photometric(page)
    supported = kind in (None, WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE)
    supported = supported or (kind == YCBCR and int(page.compression) in JPEG)
    if not supported and not (kind == _CMYK and page.dtype == np.uint8 and page.samplesperpixel == 4):
        name = getattr(page.photometric, "name", kind)
        numbers = f" in {page.samplesperpixel} bands of {page.dtype}" if kind == _CMYK else ""
        raise AutosegError(
            f"{path} stores its colours as {name}{numbers}, which autoseg does not read", "save it as gray or RGB"
        )
    if kind == _CMYK and mask:
        raise AutosegError(f"{path} is a colour picture (CMYK), not a mask of class ids", "give each colour an id")
    _check_numbers(page, path)
    if not has_codec(page):
        name = getattr(page.compression, "name", page.compression)
        raise AutosegError(
            f"{path} is compressed with {name}, which no installed codec decodes", "save it with LZW or uncompressed"
        )
    # tifffile fills truncated data of some compressions with zeros.
    end = max((start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > page.parent.filehandle.size:
        raise AutosegError(f"{path} is cut short", UNREADABLE)


def _check_numbers(page: Any, path: Path) -> None:
    """Raises AutosegError for complex numbers, and for bits that no decoder unpacks; the message quotes the tags."""
    bits = page.tags.valueof(_BITS, default=1)
    mixed = isinstance(bits, tuple) and len(set(bits)) > 1
    if mixed or page.dtype is None or page.dtype.kind not in "buif":
        formats = page.tags.valueof(_SAMPLE_FORMAT, default=1)
        sample_format = _SAMPLE_FORMATS.get(formats[0] if isinstance(formats, tuple) else formats, f"of format {formats}")
        shown = ", ".join(map(str, bits)) if mixed else bits[0] if isinstance(bits, tuple) else bits
        raise AutosegError(
            f"{path} stores {sample_format} numbers of {shown} bits, which autoseg does not read",
            "save it as whole numbers of 8 or 16 bits, or as floats of 32",
        )


def white_is_zero(array: Array, bits: int, extras: int, mask: bool) -> tuple[Array, tuple[str, ...]]:
    """Inverted values and a note. extras: bands after the gray one, which are not inverted."""
    if mask and array.dtype != np.bool_:
        return array, ("white is zero: class ids taken as stored",)
    if array.dtype.kind not in "bu" or array.dtype.itemsize > 2:
        # Undefined for signed numbers and floats, where ImageJ means its display; 2^32 - 1 - value needs more than float32.
        return array, ("white is zero, which is applied to 8 and 16 bits only: values taken as stored",)
    inverted = ~array if array.dtype == np.bool_ else array.dtype.type((1 << bits) - 1) - array
    if extras:
        inverted[..., -extras:] = array[..., -extras:]
    return inverted, ("white is zero: values inverted",)


def _alpha_band(array: Array, extras: tuple[int, ...], kind: int | None) -> int | None:
    """Index of the band that the tags declare as transparency. After RGB a constant band of unspecified meaning counts too."""
    if array.ndim != 3:
        return None
    first = int(array.shape[2]) - len(extras)
    declared = [first + place for place, extra in enumerate(extras) if extra in _ALPHA]
    if declared:
        return declared[0]
    unspecified = kind == RGB and extras == (0,) and array[..., 3].min() == array[..., 3].max()
    return 3 if unspecified else None


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


def palette(page: Any) -> Array:
    """(N, 3) uint8."""
    colours: Array = (page.colormap >> 8).astype(np.uint8).T
    return colours


def _cmyk_to_rgb(array: Array) -> Array:
    """(H, W, 3) of (H, W, 4), without a colour profile."""
    inverse = 255 - array.astype(np.uint16)
    rgb: Array = (inverse[..., :3] * inverse[..., 3:] // 255).astype(np.uint8)
    return rgb
