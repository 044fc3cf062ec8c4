"""DICOM images through pydicom (extra [dicom]): secondary captures, ultrasound, several frames, all colour models.

Without pydicom SimpleITK reads DICOM, but neither ultrasound spacing nor single frames. Both readers give the same values,
so that a model may be trained with one and used with the other.
"""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.io.types import UNREADABLE, Array, Geometry, Image, as_image
from autoseg.support.errors import AutosegError
from autoseg.support.pixel_limit import check_pixels

if TYPE_CHECKING:
    from pydicom import Dataset

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_JPEG, _JPEG_12_BIT = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "1.2.840.10008.1.2.4.51"
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_META_BYTES, _BLOCK = 4096, 1 << 20
_INFLATED_BYTES, _INFLATED_RATIO = 1 << 28, 64
_CENTIMETRES = 3
_IDENTITY = ("PatientName", "PatientID", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate")


def available() -> bool:
    """Whether pydicom is installed; it is not imported for this."""
    return importlib.util.find_spec("pydicom") is not None


def is_dicom(path: Path) -> bool:
    """Whether the file has the DICOM signature, whatever its name."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:  # Missing, a folder, or not to be read: whoever reads it says so.
        return False


def header(path: Path) -> Dataset:
    """All tags but the pixels. Raises AutosegError if this is no DICOM file, or a deflated one that would fill the memory."""
    import pydicom

    _refuse_deflate_bomb(path)
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom lets KeyError, struct.error, AttributeError and others through on damaged files.
        raise AutosegError(f"{path} cannot be read as DICOM: {_first_line(error)}", UNREADABLE) from error


def _refuse_deflate_bomb(path: Path) -> None:
    """pydicom inflates the whole file, also to read a single tag. Raises AutosegError if that gives far more bytes than a file
    of this size usually holds."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_META_BYTES)
            if start[128:132] != b"DICM" or _DEFLATED.encode() not in start:
                return
            # The group length, the first element, says where the deflated part begins.
            stream.seek(144 + int.from_bytes(start[140:144], "little"))
            limit = max(_INFLATED_BYTES, _INFLATED_RATIO * path.stat().st_size)
            inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
            while block := inflater.unconsumed_tail or stream.read(_BLOCK):
                inflated += len(inflater.decompress(block, _BLOCK))
                if inflated > limit:
                    raise AutosegError(f"{path} would inflate to more than {limit} bytes", "export it again, uncompressed")
    except (OSError, zlib.error):
        return  # pydicom tells what is wrong.


def count_frames(path: Path) -> int:
    """Number of images in a DICOM file; 1 for other or unreadable files, for more frames than its bytes can hold, and without
    pydicom."""
    if not available() or not is_dicom(path):
        return 1
    try:
        frames = int(header(path).get("NumberOfFrames") or 1)
    except (AutosegError, TypeError, ValueError):
        return 1
    # Each frame of a compressed file has a header of 8 bytes; others take at least a bit for each pixel.
    return frames if frames <= path.stat().st_size else 1


def patient_identifiers(path: Path) -> tuple[str, ...]:
    """Words of the patient's name, and numbers, in a DICOM file. File names must not contain them."""
    try:
        tags = header(path)
    except AutosegError:
        return ()
    texts = [str(tags.get(name) or "") for name in _IDENTITY]
    words = [word for text in texts for word in text.replace("^", " ").replace("=", " ").split()]
    return tuple(sorted({word.casefold() for word in words if len(word) >= 3}))


def patient_id(path: Path) -> str:
    """The patient's id in a DICOM file, "" without one, and without pydicom."""
    if not available():
        return ""
    try:
        return str(header(path).get("PatientID") or "").strip()
    except AutosegError:
        return ""


def read_image(path: Path, frame: int | None = None) -> Image:
    """One image: (C, H, W), RGB for colour images. frame: index in a file with several.

    Rescale slope and modality table are applied, MONOCHROME1 inverted, palettes and YBR become RGB. Tags of the frame take
    precedence over tags that all frames share, and these over tags of the file. spacing: of the pixels, of the
    detector, or of the largest ultrasound region. Raises AutosegError, also for several frames without `frame`.
    """
    if not path.is_file():
        raise AutosegError(f"{path} does not exist", "check the path")
    tags = header(path)
    try:
        _check_frame(path, tags, frame)
        of_frame = FrameTags(tags, frame or 0)
        array, notes = _apply_photometric(tags, _decode_pixels(path, tags, frame), _rescale(of_frame, path))
        array, rounding_notes = as_image(np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None])
        spacing, geometry, spacing_notes = frame_geometry(of_frame, array.shape[1:])
        return Image(array=array, spacing=spacing, geometry=geometry, notes=notes + spacing_notes + rounding_notes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AutosegError(f"{path} has invalid tags: {_first_line(error)}", UNREADABLE) from error


class FrameTags:
    """Tags of one frame: its own functional groups, else the shared ones, else the file's tags (DICOM PS3.3, C.7.6.16)."""

    def __init__(self, tags: Dataset, frame: int) -> None:
        """frame: index from 0. Raises ValueError if the file has groups for fewer frames."""
        self._tags = tags
        frames, shared = tags.get("PerFrameFunctionalGroupsSequence"), tags.get("SharedFunctionalGroupsSequence")
        if frames and frame >= len(frames):
            raise ValueError(f"functional groups for {len(frames)} frames only")
        self._groups = [group for group in (frames[frame] if frames else None, shared[0] if shared else None) if group]

    def get(self, keyword: str, group: str = "") -> Any:
        """The value of a tag, None without it. group: the functional group it is in, if the file has such groups."""
        for groups in self._groups:
            sequence = groups.get(group) if group else None
            if sequence and sequence[0].get(keyword) is not None:
                return sequence[0].get(keyword)
        return self._tags.get(keyword)


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
    check_pixels(path, int(tags.Columns), int(tags.Rows))
    if tags.get("HighBit") is not None and int(tags.HighBit) != int(tags.BitsStored) - 1:
        raise AutosegError(f"{path} has pixels that do not begin at the lowest bit (tag HighBit)", "export it again")


def _decode_pixels(path: Path, tags: Dataset, frame: int | None) -> Array:
    """(H, W) or (H, W, 3), decoded; colours are RGB, but palettes are not resolved."""
    from pydicom.pixels.utils import pixel_array

    meta = getattr(tags, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    try:
        if syntax in _JPEG_LOSSLESS or (syntax == _JPEG_12_BIT and int(tags.BitsAllocated) > 8):
            return _decode_with_imagecodecs(path, frame or 0)
        # Of the decoders for JPEG that may be installed, this one agrees with SimpleITK to the bit.
        options: dict[str, Any] = {"decoding_plugin": "pillow"} if syntax in _JPEG else {}
        pixels = np.asarray(pixel_array(_decodable_source(path, syntax), index=frame if frame is not None else 0, **options))
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    except (NotImplementedError, RuntimeError) as error:
        raise AutosegError(f"{path} cannot be decoded: {_first_line(error)}", "decompress it first") from error
    except MemoryError:
        raise
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


def _decode_with_imagecodecs(path: Path, frame: int) -> Array:
    """Stored values of lossless JPEG and of JPEG with 12 bits, which no decoder of pydicom with a free licence decodes."""
    import imagecodecs
    import pydicom
    from pydicom.encaps import get_frame
    from pydicom.pixels.processing import convert_color_space

    tags = pydicom.dcmread(path)
    data = get_frame(tags.PixelData, frame, number_of_frames=int(tags.get("NumberOfFrames") or 1))
    pixels = np.asarray(imagecodecs.jpeg8_decode(data))
    expected = (int(tags.Rows), int(tags.Columns), *([3] if int(tags.SamplesPerPixel) == 3 else []))
    if pixels.shape != expected:
        raise ValueError(f"{pixels.shape} values in the pixel data, {expected} in the tags")
    if str(tags.PhotometricInterpretation).startswith("YBR"):
        pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
    if int(tags.PixelRepresentation) == 1:
        unused = pixels.dtype.itemsize * 8 - int(tags.BitsStored)
        pixels = (pixels << unused).view(pixels.dtype.str.replace("u", "i")) >> unused  # Repeats the sign bit.
    return pixels


def _apply_photometric(tags: Dataset, pixels: Array, rescale: tuple[float, float]) -> tuple[Array, tuple[str, ...]]:
    """Apply palette, MONOCHROME1, modality table and rescale slope to stored values; returns values and notes."""
    kind = str(tags.get("PhotometricInterpretation", "")).strip()
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        colours = np.asarray(apply_color_lut(pixels, tags))
        if colours.dtype == np.uint16:  # Tables of 16 bits hold 8-bit colours, in the upper byte.
            colours = (colours >> 8).astype(np.uint8)
        return colours[..., :3], ("palette colours resolved",)
    if pixels.ndim == 3:
        return pixels, ()
    bits, signed = int(tags.get("BitsStored", 0)), int(tags.get("PixelRepresentation", 0)) == 1
    notes: tuple[str, ...] = ()
    if tags.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        pixels, notes = np.asarray(apply_modality_lut(pixels, tags)), ("modality table applied",)
        bits, signed, rescale = pixels.dtype.itemsize * 8, False, (1.0, 0.0)
    if kind == "MONOCHROME1":
        # Floats have no highest value: they change their sign.
        exact = pixels if pixels.dtype.kind == "f" else pixels.astype(np.int64)
        highest = 0 if pixels.dtype.kind == "f" else -1 if signed else (1 << bits) - 1
        pixels, notes = (highest - exact).astype(pixels.dtype), (*notes, "MONOCHROME1 inverted: high values are bright")
    if rescale != (1.0, 0.0):
        pixels = pixels.astype(np.float32) * np.float32(rescale[0]) + np.float32(rescale[1])
    return pixels, notes


def _rescale(tags: FrameTags, path: Path) -> tuple[float, float]:
    slope, intercept = (tags.get(name, "PixelValueTransformationSequence") for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is not None and float(slope) == 0:
        raise AutosegError(f"{path} has a rescale slope of 0, which makes all values equal", "export it again")
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _spacing(tags: FrameTags) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """(row, column) in mm, and a note if there were several."""
    stated = (tags.get("PixelSpacing", "PixelMeasuresSequence"), tags.get("ImagerPixelSpacing"))
    for value in (*stated, tags.get("NominalScannedPixelSpacing")):
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


def frame_geometry(
    tags: FrameTags, size: tuple[int, ...]
) -> tuple[tuple[float, float] | None, Geometry, tuple[str, ...]]:
    """Spacing (row, column) in mm, geometry in SimpleITK's axis order, and notes. size: (H, W)."""
    spacing, notes = _spacing(tags)
    rows, columns = spacing or (1.0, 1.0)
    position = tags.get("ImagePositionPatient", "PlanePositionSequence")
    orientation = tags.get("ImageOrientationPatient", "PlaneOrientationSequence")
    origin = [float(one) for one in position or (0.0, 0.0, 0.0)]
    axes = [float(one) for one in orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)]
    across, down = np.array(axes[:3]), np.array(axes[3:])
    direction = np.stack([across, down, np.cross(across, down)], axis=1)
    thickness = float(tags.get("SliceThickness", "PixelMeasuresSequence") or 1.0)
    geometry = Geometry(
        size=(size[1], size[0], 1),
        spacing=(columns, rows, thickness if thickness > 0 else 1.0),
        origin=(origin[0], origin[1], origin[2]),
        direction=tuple(float(one) for one in direction.ravel()),
        singletons=(0,),
        placed=bool(position and orientation),
    )
    return spacing, geometry, notes


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
