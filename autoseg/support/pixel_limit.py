"""How many pixels an image may have, by its header, before anything of it is decoded.

A file of 3 kB can declare 10 billion pixels. AUTOSEG_MAX_PIXELS sets another limit, for this process and those it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoseg.support.errors import AutosegError
from autoseg.support.workspace import MAX_PIXELS, set_or_remove_variable, variable

DEFAULT = 1 << 30  # also OpenCV's own limit
# TIFF files that prediction reads part by part: their mask alone takes a byte for each pixel.
STREAMED = 1 << 32
_OPENCV = "OPENCV_IO_MAX_IMAGE_PIXELS"


def max_pixels() -> int:
    """The limit. Raises AutosegError if the variable holds no number."""
    text = variable(MAX_PIXELS)
    if text and not (text.isdecimal() and int(text)):
        raise AutosegError(f"{MAX_PIXELS} is {text!r}", "set it to a number of pixels, or unset it")
    return int(text) if text else DEFAULT


@contextmanager
def pixel_limit(pixels: int | None) -> Iterator[None]:
    """Another limit while the block runs, in all threads. None: the block may change it with `set_max_pixels`."""
    before = {name: variable(name) for name in (MAX_PIXELS, _OPENCV)}
    try:
        if pixels is not None:
            set_max_pixels(pixels)
        yield
    finally:
        for name, value in before.items():
            set_or_remove_variable(name, value)


def set_max_pixels(pixels: int) -> None:
    """Set the limit of this process, and that of OpenCV if it is not imported yet."""
    set_or_remove_variable(MAX_PIXELS, str(pixels))
    if pixels > DEFAULT:
        set_or_remove_variable(_OPENCV, str(pixels))


def check_pixels(path: Path | str, width: int, height: int, *, streamed: bool = False) -> None:
    """Raises AutosegError for an image of more pixels than the limit. streamed: it is read part by part."""
    limit = max_pixels()
    if streamed:
        limit = max(limit, STREAMED)
    if width * height > limit:
        raise AutosegError(
            f"{path} is too large: {width} x {height} pixels",
            f"the limit is {limit}; if you trust the file and have the memory, raise it: --max-pixels {width * height} "
            f"(in Python {MAX_PIXELS}); else cut it into tiles",
        )
