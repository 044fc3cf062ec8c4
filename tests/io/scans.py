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
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = _MR if mr else _VIDEO if frames > 1 else _ULTRASOUND if regions else _CAPTURE
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, name, generate_uid())
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "MR" if mr else "US"
    if mr:
        dataset.FrameOfReferenceUID = generate_uid()
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.5], 2
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if frames > 1:
        dataset.NumberOfFrames = frames
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored = bits, stored or bits
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    if palette is not None:
        _add_palette(dataset, palette)
    if regions:
        dataset.SequenceOfUltrasoundRegions = [_region(*region) for region in regions]
    for name, value in tags.items():
        setattr(dataset, name, value)
    if photometric == "YBR_FULL":
        pixels = pydicom.pixels.convert_color_space(pixels, "RGB", "YBR_FULL")
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    if syntax == "jpeg":
        _encapsulate_jpeg(dataset, pixels)
    elif syntax.startswith("jpeg lossless"):
        _encapsulate_lossless_jpeg(dataset, pixels, syntax)
    elif syntax in ("rle", "j2k", "jls"):
        dataset.compress(_SYNTAX[syntax], generate_instance_uid=False)
    elif syntax == "big endian":
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder(">")).tobytes()
        dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    elif syntax in ("deflated", "implicit"):
        dataset.file_meta.TransferSyntaxUID = _SYNTAX[syntax]
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _add_palette(dataset, palette):
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for name, column in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [len(palette), 0, 16])
        setattr(dataset, f"{name}PaletteColorLookupTableData", (column.astype(np.uint16) * 257).tobytes())


def _region(box, centimetres, unit=3):
    import pydicom

    dataset = pydicom.Dataset()
    dataset.RegionLocationMinX0, dataset.RegionLocationMinY0, dataset.RegionLocationMaxX1, dataset.RegionLocationMaxY1 = box
    dataset.PhysicalUnitsXDirection = dataset.PhysicalUnitsYDirection = unit
    dataset.PhysicalDeltaX = dataset.PhysicalDeltaY = centimetres
    return dataset


def _encapsulate_jpeg(dataset, pixels):
    from pydicom.encaps import encapsulate

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = _SYNTAX["jpeg"]
    if pixels.ndim == 3:
        dataset.PhotometricInterpretation = "YBR_FULL_422"


def _encapsulate_lossless_jpeg(dataset, pixels, syntax):
    import imagecodecs
    from pydicom.encaps import encapsulate

    bits, frames = dataset.BitsStored, int(dataset.get("NumberOfFrames") or 1)
    unsigned = (pixels.astype(np.int64) & ((1 << bits) - 1)).astype(f"uint{dataset.BitsAllocated}")
    planes = unsigned.reshape(
        frames, dataset.Rows, dataset.Columns, *unsigned.shape[unsigned.ndim - (dataset.SamplesPerPixel == 3) :]
    )
    options = {} if dataset.SamplesPerPixel == 3 else {"bitspersample": bits}
    encode = imagecodecs.ljpeg_encode if dataset.SamplesPerPixel == 1 else imagecodecs.jpeg8_encode
    options |= {} if dataset.SamplesPerPixel == 1 else {"lossless": True, "colorspace": "RGB", "outcolorspace": "RGB"}
    dataset.PixelData = encapsulate([encode(np.ascontiguousarray(plane), **options) for plane in planes])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = _SYNTAX[syntax]
