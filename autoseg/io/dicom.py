"""DICOM images through pydicom (extra [dicom]): secondary captures, ultrasound, several frames, all colour models.

Without pydicom SimpleITK reads DICOM, but neither ultrasound spacing nor single frames. Both readers give the same values,
so that a model may be trained with one and used with the other.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.io.types import UNREADABLE, Array, Geometry, Image, as_image
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from pydicom import Dataset

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_CENTIMETRES = 3
_IDENTITY = ("PatientName", "PatientID", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate")


def available() -> bool:
    """Whether pydicom is installed; it is not imported for this."""
    return importlib.util.find_spec("pydicom") is not None


def is_dicom(path: Path) -> bool:
    """Whether the file has the DICOM signature, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def header(path: Path) -> Dataset:
    """All tags but the pixels. Raises AutosegError if this is not a DICOM file."""
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom lets KeyError, struct.error, AttributeError and others through on damaged files.
        raise AutosegError(f"{path} cannot be read as DICOM: {_first_line(error)}", UNREADABLE) from error


def count_frames(path: Path) -> int:
    """Number of images in a DICOM file; 1 for other or unreadable files, and without pydicom."""
    if not available() or not is_dicom(path):
        return 1
    try:
        return int(header(path).get("NumberOfFrames") or 1)
    except (AutosegError, TypeError, ValueError):
        return 1


def patient_identifiers(path: Path) -> tuple[str, ...]:
    """Words of the patient's name, and numbers, in a DICOM file. File names must not contain them."""
    try:
        tags = header(path)
    except AutosegError:
        return ()
    texts = [str(tags.get(name) or "") for name in _IDENTITY]
    words = [word for text in texts for word in text.replace("^", " ").replace("=", " ").split()]
    return tuple(sorted({word.casefold() for word in words if len(word) >= 3}))


def read_image(path: Path, frame: int | None = None) -> Image:
    """One image: (C, H, W), RGB for colour images. frame: index in a file with several.

    The rescale slope is applied, MONOCHROME1 inverted, palettes and YBR become RGB. spacing: of the pixels, of the
    detector, or of the largest ultrasound region. Raises AutosegError, also for several frames without `frame`.
    """
    if not path.is_file():
        raise AutosegError(f"{path} does not exist", "check the path")
    tags = header(path)
    try:
        _check_frame(path, tags, frame)
        array, notes = _apply_photometric(tags, _decode_pixels(path, tags, frame))
        spacing, spacing_notes = _spacing(tags)
        array, rounding_notes = as_image(np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None])
        return Image(
            array=array,
            spacing=spacing,
            geometry=_geometry(tags, array.shape[1:], spacing),
            notes=notes + spacing_notes + rounding_notes,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AutosegError(f"{path} has invalid tags: {_first_line(error)}", UNREADABLE) from error


def _check_frame(path: Path, tags: Dataset, frame: int | None) -> None:
    if not tags.get("Rows") or not tags.get("Columns"):
        raise AutosegError(f"{path} is DICOM but holds no image", "remove it from the folder")
    count = int(tags.get("NumberOfFrames") or 1)
    if frame is None and count > 1:
        raise AutosegError(
            f"{path} is a volume or video of {count} frames", "autoseg works on 2D images: save each frame as a file"
        )
    if frame is not None and not 0 <= frame < count:
        raise AutosegError(f"{path} has no frame {frame}: it holds {count}", "count from 0")


def _decode_pixels(path: Path, tags: Dataset, frame: int | None) -> Array:
    """(H, W) or (H, W, 3), decoded; colours are RGB, but palettes are not resolved."""
    from pydicom.pixels.utils import pixel_array

    meta = getattr(tags, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    # Of the decoders for JPEG that may be installed, this one agrees with SimpleITK to the bit.
    options: dict[str, Any] = {"decoding_plugin": "pillow"} if syntax in _JPEG else {}
    try:
        pixels = np.asarray(pixel_array(_decodable_source(path, syntax), index=frame if frame is not None else 0, **options))
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    except (NotImplementedError, RuntimeError) as error:
        # Lossless JPEG and the like have no freely licensed decoder in Python; SimpleITK brings one.
        if frame is None and int(tags.get("NumberOfFrames") or 1) == 1:
            return _decode_with_simpleitk(path, tags, error)
        raise AutosegError(f"{path} cannot be decoded: {_first_line(error)}", "decompress it first") from error
    except Exception as error:  # Decoders raise whatever their C code or Pillow raises on damaged data.
        raise AutosegError(f"{path} cannot be read: {_first_line(error)}", UNREADABLE) from error


def _decodable_source(path: Path, syntax: str) -> Any:
    """What pydicom decodes: the path, or a dataset if the file has no transfer syntax."""
    import pydicom

    if is_dicom(path) and syntax != _DEFLATED:
        return path
    tags = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in tags.file_meta:
        tags.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    return tags


def _decode_with_simpleitk(path: Path, tags: Dataset, reason: Exception) -> Array:
    """Stored values as pydicom gives them; only for files whose values SimpleITK does not change."""
    import SimpleITK as sitk  # noqa: N813

    needs_transform = _rescale(tags) != (1.0, 0.0) or tags.get("PhotometricInterpretation") in ("MONOCHROME1", "PALETTE COLOR")
    if needs_transform:
        raise AutosegError(f"{path} cannot be decoded: {_first_line(reason)}", "decompress it first")
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise AutosegError(f"{path} cannot be decoded: {_first_line(reason)}", UNREADABLE) from error
    return np.asarray(array[0] if array.shape[0] == 1 else array)


def _apply_photometric(tags: Dataset, pixels: Array) -> tuple[Array, tuple[str, ...]]:
    """Apply palette, MONOCHROME1 and rescale slope to stored values; returns values and notes."""
    kind = str(tags.get("PhotometricInterpretation", "")).strip()
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        colours = np.asarray(apply_color_lut(pixels, tags))
        if colours.dtype == np.uint16:  # Tables of 16 bits hold 8-bit colours, in the upper byte.
            colours = (colours >> 8).astype(np.uint8)
        return colours[..., :3], ("palette colours resolved",)
    notes: tuple[str, ...] = ()
    if kind == "MONOCHROME1":
        signed = int(tags.get("PixelRepresentation", 0)) == 1
        inverted = -1 - pixels.astype(np.int64) if signed else (1 << int(tags.BitsStored)) - 1 - pixels.astype(np.int64)
        pixels, notes = inverted.astype(pixels.dtype), ("MONOCHROME1 inverted: high values are bright",)
    slope, intercept = _rescale(tags)
    if pixels.ndim == 2 and (slope, intercept) != (1.0, 0.0):
        pixels = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return pixels, notes


def _rescale(tags: Dataset) -> tuple[float, float]:
    slope, intercept = tags.get("RescaleSlope"), tags.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _spacing(tags: Dataset) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """(row, column) in mm, and a note if there were several."""
    measures = _shared_group(tags, "PixelMeasuresSequence")
    stated = [tags.get("PixelSpacing"), measures.get("PixelSpacing") if measures is not None else None]
    for value in (*stated, tags.get("ImagerPixelSpacing"), tags.get("NominalScannedPixelSpacing")):
        if value and len(value) == 2 and all(float(one) > 0 for one in value):
            return (float(value[0]), float(value[1])), ()
    regions = [_region_spacing(region) for region in tags.get("SequenceOfUltrasoundRegions") or ()]
    measured = sorted((region for region in regions if region), key=lambda region: region[0])
    if not measured:
        return None, ()
    several = len({spacing for _, spacing in measured}) > 1
    return measured[-1][1], ("spacing of the largest ultrasound region",) if several else ()


def _region_spacing(region: Dataset) -> tuple[int, tuple[float, float]] | None:
    """Area in pixels and spacing of an ultrasound region that is measured in centimetres."""
    units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
    deltas = (region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX"))
    if units != (_CENTIMETRES, _CENTIMETRES) or not all(deltas):
        return None
    corners = [int(region.get(f"RegionLocation{name}") or 0) for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    area = (corners[2] - corners[0]) * (corners[3] - corners[1])
    return area, (abs(float(deltas[0])) * 10, abs(float(deltas[1])) * 10)


def _shared_group(tags: Dataset, name: str) -> Dataset | None:
    groups = tags.get("SharedFunctionalGroupsSequence")
    sequence = groups[0].get(name) if groups else None
    return sequence[0] if sequence else None


def _geometry(tags: Dataset, size: tuple[int, ...], spacing: tuple[float, float] | None) -> Geometry:
    """In SimpleITK's axis order, for masks that are written as NIfTI."""
    rows, columns = spacing or (1.0, 1.0)
    origin = [float(one) for one in tags.get("ImagePositionPatient") or (0.0, 0.0, 0.0)]
    axes = [float(one) for one in tags.get("ImageOrientationPatient") or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)]
    across, down = np.array(axes[:3]), np.array(axes[3:])
    direction = np.stack([across, down, np.cross(across, down)], axis=1)
    thickness = float(tags.get("SliceThickness") or 1.0)
    return Geometry(
        size=(size[1], size[0], 1),
        spacing=(columns, rows, thickness if thickness > 0 else 1.0),
        origin=(origin[0], origin[1], origin[2]),
        direction=tuple(float(one) for one in direction.ravel()),
        singletons=(0,),
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
