"""Which page of a TIFF is the image: thumbnails, smaller copies and transparency masks are not, whatever their order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_REMEDY = "autoseg works on 2D images: save each page as a file of its own"


def image_page(file: TiffFile, path: Path) -> tuple[TiffPage, tuple[str, ...]]:
    """The page with the image, and a note if it is not the first. Raises AutosegError for several images.

    The tag NewSubfileType marks smaller copies and transparency masks. A page without this mark is a thumbnail if both its
    sides are at most half as long as those of the largest page. Pages inside others (SubIFDs) count as well.
    """
    pages: list[Any] = [page for outer in file.pages for page in (outer, *(outer.pages or () if outer.subifds else ()))]
    if len(pages) == 1:
        _reject_hidden_images(file, pages[0], path)
        return pages[0], ()
    images = [page for page in pages if not page.is_mask and not page.is_reduced]
    images = images or [page for page in pages if not page.is_mask] or pages
    largest = max(images, key=lambda page: page.imagelength * page.imagewidth)
    rivals = [page for page in images if page is not largest and not _is_thumbnail(page, largest)]
    if rivals:
        raise AutosegError(f"{path} holds several pages", _REMEDY)
    _reject_hidden_images(file, largest, path)
    masks = sum(page.is_mask for page in pages)
    notes = (
        (f"image taken from page {pages.index(largest) + 1}: the pages before it are thumbnails",)
        if largest is not pages[0]
        else ()
    )
    return largest, (*notes, "page with a transparency mask ignored") if masks else notes


def _is_thumbnail(page: Any, largest: Any) -> bool:
    return bool(2 * page.imagelength <= largest.imagelength and 2 * page.imagewidth <= largest.imagewidth)


def _reject_hidden_images(file: TiffFile, page: Any, path: Path) -> None:
    """Raises AutosegError for a stack of images behind a single page, as ImageJ and tifffile store large ones."""
    count = 1
    if file.is_imagej:
        count = int((file.imagej_metadata or {}).get("images", 1))
    elif file.is_shaped and (shape := (file.shaped_metadata or ({},))[0].get("shape")):
        count = math.prod(shape) // max(math.prod(page.shape), 1)
    if count > 1:
        raise AutosegError(f"{path} holds {count} images behind one page", _REMEDY)
