"""The entrance: which reader a file needs, by its suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import autoseg.io.dicom as dicom
import autoseg.io.medical as medical
import autoseg.io.raster as raster
from autoseg.io.contents import Array, Image, Label, as_label
from autoseg.support.errors import AutosegError

IMAGE_SUFFIXES = (*raster.SUFFIXES, *medical.SUFFIXES)
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".nii", ".nii.gz", ".mha", ".nrrd")


def suffix_of(path: Path | str) -> str:
    """The suffix, in lower case, with `.nii.gz` whole; "" where there is none."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem_of(path: Path | str) -> str:
    """The file's name without `suffix_of`."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


def is_image(path: Path) -> bool:
    """Whether this is a file that `read_image` can try, going by its name; hidden files are not."""
    return suffix_of(path) in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def mask_ending(file_ending: str) -> str:
    """The ending for a mask of an image with this one: the same where it is lossless and holds no patient tags.

    JPEG -> .png; DICOM and .mhd, which would need a header of its own, -> .nii.gz and .mha.
    """
    lower = file_ending.lower()
    return {".dcm": ".nii.gz", ".mhd": ".mha"}.get(lower, lower if lower in _LOSSLESS else ".png")


def read_image(path: Path | str, frame: int | None = None) -> Image:
    """One image file: (C, H, W), RGB where it has colours. See `Image`.

    PNG, JPEG, TIFF, BMP, NIfTI, MHA, NRRD, DICOM. frame: which image of a DICOM file that holds several. EXIF orientation
    is applied, a constant alpha channel is dropped, a DICOM's rescale slope is applied, signed integers become float32.
    Resolution tags of pictures are not taken for a spacing: they speak of screens and printers. Raises AutosegError,
    naming the file and a remedy.
    """
    path = Path(path)
    image = medical.read_image(path, frame) if _is_medical(path) else raster.read_image(path)
    if image.array.dtype == np.float32 and not np.isfinite(image.array).all():
        count = int((~np.isfinite(image.array)).sum())
        raise AutosegError(f"{path} holds {count} values that are not finite numbers", "replace them, for example by 0")
    return image


def read_case(paths: Sequence[Path], frame: int | None = None) -> Image:
    """The channel files of one case stacked: (C, H, W). Geometry and spacing are the first file's. frame: see `read_image`.

    Raises AutosegError where the files differ in size or spacing.
    """
    images = [read_image(path, frame) for path in paths]
    first = images[0]
    if len(images) == 1:
        return first
    for path, image in zip(paths[1:], images[1:], strict=True):
        if image.array.shape[1:] != first.array.shape[1:]:
            raise AutosegError(
                f"{path} has {_size(image.array)} pixels but {paths[0]} has {_size(first.array)}",
                "the channels of a case must have one size: resample or crop them to match",
            )
        if first.spacing and image.spacing and not np.allclose(first.spacing, image.spacing, rtol=1e-3):
            raise AutosegError(
                f"{path} has a spacing of {image.spacing} mm but {paths[0]} has {first.spacing} mm",
                "the channels of a case must have one spacing: resample them to match",
            )
    kind = np.result_type(*(image.array.dtype for image in images))
    stacked = np.concatenate([image.array.astype(kind, copy=False) for image in images])
    notes = tuple(note for image in images for note in image.notes)
    return Image(array=stacked, spacing=first.spacing, geometry=first.geometry, notes=notes, orientation=first.orientation)


def read_label(path: Path | str) -> Label:
    """One mask file: (H, W), uint8 or uint16. Palette PNGs give their indices, 1-bit ones 0 and 1.

    A JPEG is read as it is and flagged `lossy`. Raises AutosegError for colour pictures, values that are negative or
    not whole, and unreadable files.
    """
    path = Path(path)
    return medical.read_label(path) if _is_medical(path) else raster.read_label(path)


def write_label(path: Path, array: Array, like: Image | Label | None = None) -> None:
    """A mask (H, W) of whole values, in the format of the path's suffix, whole or not at all.

    like: what the mask belongs to; medical formats take its geometry, or at least its spacing. Raises ValueError
    where the sizes differ or the suffix names a format that loses values.
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
    """An image (C, H, W), in the format of the path's suffix, without loss and whole or not at all.

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


def _is_medical(path: Path) -> bool:
    if suffix_of(path) in medical.SUFFIXES:
        return True
    return not raster.knows(path) and dicom.is_dicom(path)


def _check_size(array: Array, like: Image | Label | None) -> None:
    if like is not None and array.shape[-2:] != like.array.shape[-2:]:
        raise ValueError(f"an array of {_size(array)} pixels cannot take the geometry of one with {_size(like.array)}")


def _size(array: Array) -> str:
    return f"{array.shape[-2]} x {array.shape[-1]}"
