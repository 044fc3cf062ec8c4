"""DICOM files as hospitals have them, made by hand: only what a test is about differs from one to the next."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_SYNTAX = {
    "implicit": "1.2.840.10008.1.2",
    "plain": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg lossless 57": "1.2.840.10008.1.2.4.57",
    "jpeg lossless": "1.2.840.10008.1.2.4.70",
    "jls": "1.2.840.10008.1.2.4.80",
    "j2k": "1.2.840.10008.1.2.4.90",
}
_CAPTURE, _ULTRASOUND, _VIDEO, _MR = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("7", "6.1", "3.1", "4"))


def scan(path, pixels, syntax="plain", photometric=None, palette=None, regions=(), stored=None, mr=False, **tags):
    """A DICOM file of (H, W), (H, W, 3) or (frames, H, W) values. regions: ((x0, y0, x1, y1), cm per pixel[, unit])."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colour else 1
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = _MR if mr else _VIDEO if frames > 1 else _ULTRASOUND if regions else _CAPTURE
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(made, name, generate_uid())
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.Modality = "MR" if mr else "US"
    if mr:
        made.FrameOfReferenceUID = generate_uid()
        made.ImagePositionPatient, made.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
        made.PixelSpacing, made.SliceThickness = [0.5, 0.5], 2
    made.Rows, made.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if frames > 1:
        made.NumberOfFrames = frames
    bits = pixels.dtype.itemsize * 8
    made.BitsAllocated, made.BitsStored = bits, stored or bits
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    made.SamplesPerPixel = 3 if colour else 1
    if colour:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    if palette is not None:
        _add_palette(made, palette)
    if regions:
        made.SequenceOfUltrasoundRegions = [_region(*region) for region in regions]
    for name, value in tags.items():
        setattr(made, name, value)
    if photometric == "YBR_FULL":
        pixels = pydicom.pixels.convert_color_space(pixels, "RGB", "YBR_FULL")
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    if syntax == "jpeg":
        _encapsulate_jpeg(made, pixels)
    elif syntax.startswith("jpeg lossless"):
        _encapsulate_lossless_jpeg(made, pixels, syntax)
    elif syntax in ("rle", "j2k", "jls"):
        made.compress(_SYNTAX[syntax], generate_instance_uid=False)
    elif syntax == "big endian":
        made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        made.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder(">")).tobytes()
        made["PixelData"].VR = "OW" if bits > 8 else "OB"
    elif syntax in ("deflated", "implicit"):
        made.file_meta.TransferSyntaxUID = _SYNTAX[syntax]
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def _add_palette(made, palette):
    made.PhotometricInterpretation = "PALETTE COLOR"
    for name, column in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [len(palette), 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", (column.astype(np.uint16) * 257).tobytes())


def _region(box, centimetres, unit=3):
    import pydicom

    made = pydicom.Dataset()
    made.RegionLocationMinX0, made.RegionLocationMinY0, made.RegionLocationMaxX1, made.RegionLocationMaxY1 = box
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = unit
    made.PhysicalDeltaX = made.PhysicalDeltaY = centimetres
    return made


def _encapsulate_jpeg(made, pixels):
    from pydicom.encaps import encapsulate

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    made.PixelData = encapsulate([stream.getvalue()])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = _SYNTAX["jpeg"]
    if pixels.ndim == 3:
        made.PhotometricInterpretation = "YBR_FULL_422"


def _encapsulate_lossless_jpeg(made, pixels, syntax):
    import imagecodecs
    from pydicom.encaps import encapsulate

    bits, frames = made.BitsStored, int(made.get("NumberOfFrames") or 1)
    unsigned = (pixels.astype(np.int64) & ((1 << bits) - 1)).astype(f"uint{made.BitsAllocated}")
    planes = unsigned.reshape(frames, made.Rows, made.Columns, *unsigned.shape[unsigned.ndim - (made.SamplesPerPixel == 3) :])
    options = {} if made.SamplesPerPixel == 3 else {"bitspersample": bits}
    encode = imagecodecs.ljpeg_encode if made.SamplesPerPixel == 1 else imagecodecs.jpeg8_encode
    options |= {} if made.SamplesPerPixel == 1 else {"lossless": True, "colorspace": "RGB", "outcolorspace": "RGB"}
    made.PixelData = encapsulate([encode(np.ascontiguousarray(plane), **options) for plane in planes])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = _SYNTAX[syntax]
