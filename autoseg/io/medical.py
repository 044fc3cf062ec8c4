"""NIfTI, MetaImage, NRRD (and DICOM without pydicom) through SimpleITK, imported only for such files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import autoseg.io.dicom as dicom
import autoseg.io.nifti as nifti
import autoseg.io.segmentation as segmentation
from autoseg.io.types import UNREADABLE, Array, Geometry, Image, Label, as_image, as_label
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, check_utf8
from autoseg.support.out_of_memory import is_out_of_memory
from autoseg.support.pixel_limit import check_pixels

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".dcm")
# A transfer syntax, which SimpleITK does not show, and the bytes at the start of a file within which it stands.
_RLE, _META = b"1.2.840.10008.1.2.5\0", 4096
_SPACING_TAGS = ("0028|0030", "0018|1164", "0018|2010")
_POSITION_TAGS = ("0020|0032", "0020|0037")
# Objects whose geometry is in functional groups: enhanced CT, MR, MR colour, XA, XRF, PET, ultrasound volume.
_ENHANCED = tuple(f"1.2.840.10008.5.1.4.1.1.{one}" for one in ("2.1", "4.1", "4.3", "12.1.1", "12.2.1", "130", "6.2"))
# Modality LUT Sequence and Pixel Data, in either byte order.
_MODALITY_TABLE, _PIXEL_DATA = (b"\x28\0\0\x30", b"\0\x28\x30\0"), (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10")
_NO_PYDICOM = 'pip install "autoseg[dicom]", which reads it; if it does not, the file is damaged'


def read_image(path: Path, frame: int | None = None) -> Image:
    """See `autoseg.io.read_image`."""
    if _needs_pydicom(path):
        return dicom.read_image(path, frame)
    array, spacing, geometry, notes = _read_with_simpleitk(path)
    array, rounding_notes = as_image(array)
    return Image(array=array, spacing=spacing, geometry=geometry, notes=notes + rounding_notes)


def read_label(path: Path) -> Label:
    """See `autoseg.io.read_label`."""
    if _needs_pydicom(path) and segmentation.is_segmentation(path):
        return segmentation.read(path)
    image = read_image(path)
    array, spacing, geometry, notes = image.array, image.spacing, image.geometry, image.notes
    if array.shape[0] != 1:
        raise AutosegError(f"{path} is no mask: it has {array.shape[0]} channels", "store class ids in one channel")
    values = as_label(array[0])
    if values is None:
        raise AutosegError(
            f"{path} is no mask: its values are not whole numbers from 0 to 65535 ({array.min()} to {array.max()})",
            "store class ids: 0 for the background, 1 for the first class, and so on",
        )
    return Label(array=values, spacing=spacing, geometry=geometry, notes=notes)


def write(path: Path, array: Array, like: Image | Label | None) -> None:
    """(C, H, W) with the geometry or spacing of `like`; several channels become a vector image."""
    import SimpleITK as sitk  # noqa: N813

    check_utf8(path)
    pixels = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    geometry = like.geometry if like is not None else None
    if geometry is not None:
        pixels = np.expand_dims(pixels, geometry.singletons)
    image = sitk.GetImageFromArray(np.ascontiguousarray(pixels), isVector=array.shape[0] > 1)
    if geometry is not None:
        image.SetSpacing(geometry.spacing)
        image.SetOrigin(geometry.origin)
        image.SetDirection(geometry.direction)
    elif like is not None and like.spacing is not None:
        image.SetSpacing((like.spacing[1], like.spacing[0]))
    with atomic_write(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=path.suffix != ".nii")
        except RuntimeError as error:
            raise AutosegError(
                f"cannot write {path}: {_itk_message(error)}", "check the disk and the folder"
            ) from error


def _needs_pydicom(path: Path) -> bool:
    return dicom.available() and (path.suffix.lower() == ".dcm" or dicom.is_dicom(path))


def _read_with_simpleitk(path: Path) -> tuple[Array, tuple[float, float] | None, Geometry, tuple[str, ...]]:
    """(C, H, W), spacing (row, column), geometry, notes."""
    import SimpleITK as sitk  # noqa: N813

    if not path.is_file():
        raise AutosegError(f"{path} does not exist", "check the path")
    check_utf8(path)
    header = nifti.check(path) if path.name.lower().endswith(nifti.SUFFIXES) else None
    reader = sitk.ImageFileReader()
    try:
        with nifti.apart_from_siblings(path) as file:
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
            tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys() if key[4:5] == "|"}
            size = sorted(reader.GetSize()[:3])
            check_pixels(path, size[-1] * math.prod(size[:-2]), size[-2])
            _reject_misread(path, tags)
            if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
                raise AutosegError(f"{path} holds complex numbers, which autoseg does not read", "save their magnitudes")
            image = reader.Execute()
        array = sitk.GetArrayFromImage(image)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        remedy = _NO_PYDICOM if dicom.is_dicom(path) else UNREADABLE
        raise AutosegError(f"{path} cannot be read: {_itk_message(error)}", remedy) from error
    planes, geometry, spacing, notes = _as_2d(path, array, image)
    if header is not None:
        planes, alpha_notes = _drop_alpha(path, planes) if header.alpha else (planes, ())
        return planes, spacing, replace(geometry, placed=header.placed), (*header.notes, *notes, *alpha_notes)
    if not tags:
        return planes, spacing, geometry, notes
    if tags.get("0028|0004") == "MONOCHROME1":
        notes += ("MONOCHROME1 inverted: high values are bright",)  # ITK does it.
    enhanced = tags.get("0008|0016") in _ENHANCED
    spacing_is_stated = any(tags.get(tag) for tag in _SPACING_TAGS) or (enhanced and spacing != (1.0, 1.0))
    placed = enhanced or all(tags.get(tag) for tag in _POSITION_TAGS)
    return planes, spacing if spacing_is_stated else None, replace(geometry, placed=placed), notes


def _as_2d(path: Path, array: Array, image: sitk.Image) -> tuple[Array, Geometry, tuple[float, float], tuple[str, ...]]:
    """(C, H, W), geometry of at most three axes, spacing (row, column), notes."""
    components, size = image.GetNumberOfComponentsPerPixel(), image.GetSize()
    notes: tuple[str, ...] = ()
    if len(size) > 3:
        channels = math.prod(size[3:])
        if channels > 1 and components == 1 and 1 in size[:3]:
            notes = (f"the {channels} images along the fourth axis taken as channels",)
            array, components = np.moveaxis(array.reshape(channels, *size[2::-1]), 0, -1), channels
        elif channels == 1:
            array = array.reshape(*size[2::-1], *array.shape[len(size) :])
        size = size if channels > 1 and not notes else size[:3]
    shape = array.shape[:-1] if components > 1 else array.shape
    # A plane that is itself one pixel wide keeps that axis; only surplus axes go, the slowest first.
    surplus = len(shape) - 2
    singletons = tuple(axis for axis, length in enumerate(shape) if length == 1)[: max(surplus, 0)]
    if surplus < 0 or len(singletons) < surplus:
        sizes = " x ".join(str(length) for length in image.GetSize())
        raise AutosegError(f"{path} is a volume of {sizes}", "autoseg works on 2D images: save each slice as a file of its own")
    squeezed = np.squeeze(array, singletons)
    axes = [axis for axis in range(len(shape)) if axis not in singletons]
    dimensions, direction = len(size), np.array(image.GetDirection()).reshape((image.GetDimension(),) * 2)
    geometry = Geometry(
        size=size,
        spacing=image.GetSpacing()[:dimensions],
        origin=image.GetOrigin()[:dimensions],
        direction=tuple(float(one) for one in direction[:dimensions, :dimensions].ravel()),
        singletons=singletons,
    )
    spacings = geometry.spacing[::-1]
    planes = np.moveaxis(squeezed, -1, 0) if components > 1 else squeezed[None]
    return planes, geometry, (float(spacings[axes[0]]), float(spacings[axes[1]])), notes


def _drop_alpha(path: Path, planes: Array) -> tuple[Array, tuple[str, ...]]:
    """The first three of four channels, and a note. Raises AutosegError if the transparency varies."""
    if planes[3].min() != planes[3].max():
        raise AutosegError(f"{path} has a transparency (alpha) channel that varies", "save it without transparency")
    return planes[:3], ("constant alpha channel dropped",)


def _reject_misread(path: Path, tags: dict[str, str]) -> None:
    """Raises AutosegError for DICOM that SimpleITK reads otherwise than its tags say; pydicom reads most of it."""
    if not tags:
        return
    slope, intercept = tags.get("0028|1053"), tags.get("0028|1052")
    stored, high_bit = tags.get("0028|0101"), tags.get("0028|0102")
    content = path.read_bytes()
    header = content[: min((place for place in map(content.find, _PIXEL_DATA) if place > 0), default=0)]
    faults = {
        # GDCM scrambles them (seen with pydicom's SC_rgb_rle_16bit.dcm).
        "run-length encoded 16-bit colours": _RLE in content[:_META]
        and (tags.get("0028|0002"), tags.get("0028|0100")) == ("3", "16"),
        "one bit for each pixel": tags.get("0028|0100") == "1",
        "signed MONOCHROME1 values of fewer bits than are stored": (tags.get("0028|0004"), tags.get("0028|0103"))
        == ("MONOCHROME1", "1")
        and stored != tags.get("0028|0100"),
        "a modality table": any(tag in header for tag in _MODALITY_TABLE),
        "a palette with a rescale slope": tags.get("0028|0004") == "PALETTE COLOR"
        and (float(slope or 1), float(intercept or 0)) != (1, 0),
        "a rescale slope of 0": slope is not None and float(slope) == 0,
        "pixels that do not begin at the lowest bit": bool(stored and high_bit) and int(high_bit or 0) != int(stored or 0) - 1,
    }
    present_faults = [fault for fault, present in faults.items() if present]
    if present_faults:
        raise AutosegError(f"{path} has {' and '.join(present_faults)}, which SimpleITK misreads", _NO_PYDICOM)


def _itk_message(error: RuntimeError) -> str:
    """The last line of ITK's report, which has the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ") if lines else "unknown reason"
