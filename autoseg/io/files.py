"""Reads and writes image and mask files; the suffix selects the reader.

A reader is a module or another object with a function `read_image(path) -> Image`, looked up by the file's suffix (`READERS`,
entry points "autoseg.readers", whose name is the suffix in lower case with its dot: ".xyz" or ".abc.xyz"). The array of the
`Image` is (C, H, W): channels, rows from top to bottom, columns from left to right; uint8, uint16 or float32; colours as RGB.
Its spacing is (row, column) in mm, None if the file has none. `read_label(path) -> Label` may read masks, (H, W)
of class ids; without it they are images of one channel. `stored_as`: the suffix that masks of such images are written with,
default ".png"; ".mha" keeps the spacing. Readers are called in threads and processes, raise an error for
damaged files, and never execute content of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import autoseg.io.dicom as dicom
import autoseg.io.medical as medical
import autoseg.io.raster as raster
from autoseg.io.grid import align
from autoseg.io.types import UNREADABLE, Array, Image, Label, as_image, as_label
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import READERS
from autoseg.support.out_of_memory import REMEDY, is_out_of_memory

_OPENCV_LIMIT = "CV_IO_MAX_IMAGE"  # in the text of its error
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".nii", ".nii.gz", ".mha", ".nrrd")


def suffix_of(path: Path | str) -> str:
    """The suffix, in lower case, with `.nii.gz` as one suffix; "" if there is none."""
    name = Path(path).name.lower()
    return next((suffix for suffix in READERS.names() if suffix.count(".") > 1 and name.endswith(suffix)), Path(name).suffix)


def stem_of(path: Path | str) -> str:
    """The file's name without `suffix_of`."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


def is_image(path: Path) -> bool:
    """Whether `read_image` supports the file, by its name; False for hidden files."""
    return suffix_of(path) in READERS and not path.name.startswith(".") and path.is_file()


def is_dangling_image(path: Path) -> bool:
    """Whether this is a link, named like an image, to a file that does not exist."""
    return path.is_symlink() and not path.exists() and suffix_of(path) in READERS and not path.name.startswith(".")


def mask_ending(file_ending: str) -> str:
    """The ending for a mask of an image with this one: the same if it is lossless and holds no patient tags.

    JPEG -> .png; DICOM and .mhd, which would need a header of its own, -> .nii.gz and .mha; formats that other packages
    read -> their `stored_as`.
    """
    lower = file_ending.lower()
    if lower in READERS.added():
        return str(getattr(READERS.get(lower), "stored_as", ".png"))
    return {".dcm": ".nii.gz", ".mhd": ".mha"}.get(lower, lower if lower in _LOSSLESS else ".png")


def read_image(path: Path | str, frame: int | None = None) -> Image:
    """One image file: (C, H, W), RGB where it has colours. See `Image`.

    PNG, JPEG, TIFF, BMP, NIfTI, MHA, NRRD, DICOM, and what other packages read. frame: which image of a DICOM file that
    holds several. EXIF orientation is applied, a constant alpha channel is dropped, a DICOM's rescale slope is
    applied, signed integers become float32.
    Resolution tags of pictures are not used as spacing: they refer to screens and printers. Raises AutosegError with the
    file and a remedy.
    """
    path = Path(path)
    if is_dangling_image(path):
        raise AutosegError(f"{path} is a link to a file that does not exist", "restore the file, or remove the link")
    reader = _find_reader(path)
    with _any_error_as_autoseg_error(path):
        if reader not in (raster, medical):
            image = _read_with_plugin(reader, path)
        else:
            image = raster.read_image(path) if reader is raster else medical.read_image(path, frame)
    if image.array.dtype == np.float32 and not np.isfinite(image.array).all():
        count = int((~np.isfinite(image.array)).sum())
        raise AutosegError(f"{path} holds {count} values that are not finite numbers", "replace them, for example by 0")
    return image


def read_case(paths: Sequence[Path], frame: int | None = None) -> Image:
    """The channel files of one case stacked: (C, H, W). Geometry and spacing are the first file's. frame: see `read_image`.

    The other files are brought onto its pixel grid (see `grid.align`). Raises AutosegError if they differ in size or spacing.
    """
    images = [read_image(path, frame) for path in paths]
    first = images[0]
    for path, image in zip(paths[1:], images[1:], strict=True):
        # Not by their origins, as masks are: an image has no value for the pixels that a smaller channel lacks.
        if sorted(image.array.shape[1:]) != sorted(first.array.shape[1:]):
            raise _different_size(path, image, paths[0], first)
    images = [first, *(align(one, first, path, paths[0], "channel") for path, one in zip(paths[1:], images[1:], strict=True))]
    if len(images) == 1:
        return first
    for path, image in zip(paths[1:], images[1:], strict=True):
        if image.array.shape[1:] != first.array.shape[1:]:
            raise _different_size(path, image, paths[0], first)
        if first.spacing and image.spacing and not np.allclose(first.spacing, image.spacing, rtol=1e-3):
            raise AutosegError(
                f"{path} has a spacing of {image.spacing} mm but {paths[0]} has {first.spacing} mm",
                "all channels of a case need the same spacing: resample them",
            )
    kind = np.result_type(*(image.array.dtype for image in images))
    stacked = np.concatenate([image.array.astype(kind, copy=False) for image in images])
    notes = tuple(note for image in images for note in image.notes)
    return Image(array=stacked, spacing=first.spacing, geometry=first.geometry, notes=notes, orientation=first.orientation)


def _different_size(path: Path, image: Image, first_path: Path, first: Image) -> AutosegError:
    return AutosegError(
        f"{path} has {_size(image.array)} pixels but {first_path} has {_size(first.array)}",
        "all channels of a case need the same size: resample or crop them",
    )


def read_label(path: Path | str) -> Label:
    """One mask file: (H, W), uint8 or uint16. Palette PNGs give their indices, 1-bit PNGs 0 and 1.

    A JPEG is read as it is and flagged `lossy`. Raises AutosegError for colour pictures, values that are negative or
    not integers, and unreadable files.
    """
    path = Path(path)
    reader = _find_reader(path)
    with _any_error_as_autoseg_error(path):
        label: Label = reader.read_label(path) if reader in (raster, medical) else _read_label_with_plugin(reader, path)
    return label


def read_label_of(path: Path, images: Sequence[Path], image: Image | None = None) -> Label:
    """The mask of a case as `read_label`, on the pixel grid of its image (see `grid.align`).

    images: the case's files. image: the first of them, if it has been read already. Raises AutosegError if the geometries
    differ by more than mirrored or exchanged axes and a cut-out.
    """
    label = read_label(path)
    if label.geometry is None or not label.geometry.placed:
        return label
    return align(label, image or read_image(images[0]), path, images[0])


def write_label(path: Path, array: Array, like: Image | Label | None = None) -> None:
    """Write a mask (H, W) of integers atomically, in the format of the path's suffix.

    like: image or label whose geometry, or at least spacing, medical formats store. Raises ValueError if the sizes
    differ or the format is lossy.
    """
    _check_size(array, like)
    values = as_label(np.asarray(array))
    suffix = suffix_of(path)
    if values is None or values.ndim != 2 or suffix not in _LOSSLESS:
        raise ValueError(f"{path}: masks are (H, W) arrays of whole values in one of {', '.join(_LOSSLESS)}")
    if suffix in medical.SUFFIXES:
        medical.write(path, values[None], like)
    else:
        raster.write(path, values[None])


def write_image(path: Path, array: Array, like: Image | Label | None = None) -> None:
    """Write an image (C, H, W) atomically and lossless, in the format of the path's suffix.

    PNG and BMP hold 1 or 3 channels of uint8 (PNG also uint16), TIFF also float32, medical formats anything.
    Raises ValueError for what the format cannot hold.
    """
    _check_size(array, like)
    suffix = suffix_of(path)
    if suffix not in _LOSSLESS:
        raise ValueError(f"{path}: images are written as one of {', '.join(_LOSSLESS)}")
    if suffix in medical.SUFFIXES:
        medical.write(path, np.asarray(array), like)
    else:
        raster.write(path, np.asarray(array))


@contextmanager
def _any_error_as_autoseg_error(path: Path) -> Iterator[None]:
    """One bad file is one failed case: whatever decoders raise for it becomes an AutosegError that names it."""
    try:
        yield
    except AutosegError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise AutosegError(f"{path} is too large for the memory of this machine", REMEDY) from error
        if _OPENCV_LIMIT in str(error):
            raise AutosegError(
                f"{path} has more pixels than OpenCV reads in this process",
                "set OPENCV_IO_MAX_IMAGE_PIXELS to a larger number before Python starts",
            ) from error
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise AutosegError(f"{path} cannot be read: {type(error).__name__}: {reason}", UNREADABLE) from error


def _find_reader(path: Path) -> Any:
    """The reader by suffix, else by the first bytes: DICOM files often have no suffix."""
    suffix = suffix_of(path)
    if suffix in READERS:
        return READERS.get(suffix)
    return medical if not raster.is_picture(path) and dicom.is_dicom(path) else raster


def _read_with_plugin(reader: Any, path: Path) -> Image:
    """The checked image of another package's reader. Raises AutosegError with the package if it fails or returns no image."""
    owner = READERS.source(suffix_of(path))
    if not path.is_file():
        raise AutosegError(f"{path} does not exist", "check the path")
    try:
        image: Image = reader.read_image(path)
        array, rounding_notes = as_image(np.asarray(image.array))
    except (AutosegError, MemoryError):
        raise
    except Exception as error:  # Code of others may raise anything.
        raise AutosegError(f"{path} cannot be read by {owner}: {type(error).__name__}: {error}", UNREADABLE) from error
    if array.ndim != 3 or not array.size:
        raise AutosegError(
            f"{owner} returns an array of shape {array.shape} for {path}", "images are (C, H, W): fix the reader"
        )
    return replace(image, array=array, notes=(*image.notes, *rounding_notes))


def _read_label_with_plugin(reader: Any, path: Path) -> Label:
    if hasattr(reader, "read_label"):
        label: Label = reader.read_label(path)
        return label
    image = _read_with_plugin(reader, path)
    values = as_label(image.array[0]) if len(image.array) == 1 else None
    if values is None:
        raise AutosegError(f"{path} is no mask", "store class ids (0 for the background) in one channel of whole numbers")
    return Label(array=values, spacing=image.spacing, geometry=image.geometry, notes=image.notes)


def _check_size(array: Array, like: Image | Label | None) -> None:
    if like is not None and array.shape[-2:] != like.array.shape[-2:]:
        raise ValueError(f"an array of {_size(array)} pixels cannot take the geometry of one with {_size(like.array)}")


def _size(array: Array) -> str:
    return f"{array.shape[-2]} x {array.shape[-1]}"
