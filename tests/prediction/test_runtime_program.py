"""The program of exported folders reads, resizes and post-processes as autoseg does."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from autoseg.io import read_image
from autoseg.prediction import postprocess
from autoseg.prediction.inputs import find_jobs
from autoseg.prediction.standalone import run as program
from autoseg.preprocessing.transform import resize_pixels
from autoseg.schema.prediction import PostProcessing
from autoseg.support.errors import AutosegError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GRAY = COLOUR[..., 0]
DEEP = RANDOM.integers(0, 65536, (20, 30)).astype(np.uint16)
OPAQUE, VARYING = np.dstack([COLOUR, np.full_like(GRAY, 255)]), np.dstack([COLOUR, GRAY])
PALETTE = Pillow.fromarray(COLOUR).quantize(20)
SMOOTH = np.clip(RANDOM.normal(128, 50, (61, 43, 3)), 0, 255).astype(np.uint8)


def turned(orientation: int) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x112] = orientation
    return exif


# File -> what writes it.
BY_PILLOW = {
    "colour.png": (COLOUR, {}), "gray.png": (GRAY, {}), "deep.png": (DEEP, {}), "palette.png": (PALETTE, {}),
    "bits.png": (GRAY > 99, {}), "opaque.png": (OPAQUE, {}), "varying.png": (VARYING, {}),
    "transparent_index.png": (PALETTE, {"transparency": 3}), "unused_index.png": (PALETTE, {"transparency": 200}),
    "transparent_colour.png": (COLOUR, {"transparency": tuple(int(one) for one in COLOUR[0, 0])}),
    "transparent_gray.png": (GRAY, {"transparency": int(GRAY[0, 0])}),
    "colour.jpg": (SMOOTH, {"quality": 75}), "gray.jpg": (GRAY, {}), "444.jpg": (SMOOTH, {"subsampling": 0}),
    "422.jpg": (SMOOTH, {"subsampling": 1}), "progressive.jpg": (SMOOTH, {"progressive": True}),
    "colour.bmp": (COLOUR, {}), "gray.bmp": (GRAY, {}), "palette.bmp": (PALETTE, {}), "bits.bmp": (GRAY > 99, {}),
    "palette.tif": (PALETTE, {}), "cmyk.jpg": (Pillow.fromarray(COLOUR).convert("CMYK"), {}),
    **{f"turned{one}.jpg": (SMOOTH, {"exif": turned(one)}) for one in range(1, 9)},
    **{f"turned{one}.png": (COLOUR, {"exif": turned(one)}) for one in (3, 6)},
}  # fmt: skip
GRAY_TIFF, COLOUR_TIFF = {"photometric": "minisblack"}, {"photometric": "rgb"}
BY_TIFFFILE = {
    "gray.tif": (GRAY, GRAY_TIFF), "deep.tif": (DEEP, GRAY_TIFF), "colour.tif": (COLOUR, COLOUR_TIFF),
    "big_endian.tif": (DEEP, {**GRAY_TIFF, "byteorder": ">"}), "inverted.tif": (GRAY, {"photometric": "miniswhite"}),
    "inverted_bits.tif": (GRAY > 99, {"photometric": "miniswhite"}), "bits.tif": (GRAY > 99, GRAY_TIFF),
    "float.tif": (GRAY / np.float32(7), GRAY_TIFF), "signed.tif": (DEEP.view(np.int16), GRAY_TIFF),
    "lzw.tif": (COLOUR, {**COLOUR_TIFF, "compression": "lzw", "predictor": True}),
    "tiles.tif": (np.tile(SMOOTH, (2, 2, 1)), {**COLOUR_TIFF, "tile": (32, 32)}),
    "planes.tif": (np.moveaxis(COLOUR, 2, 0), {**COLOUR_TIFF, "planarconfig": "separate"}),
    "opaque.tif": (OPAQUE, {**COLOUR_TIFF, "extrasamples": ["unassalpha"]}),
    "turned.tif": (COLOUR, {**COLOUR_TIFF, "extratags": [(274, 3, 1, 6, True)]}),
    "nan.tif": (np.where(GRAY > 9, np.float32(1), np.float32(np.nan)), GRAY_TIFF),
    "stack.tif": (np.stack([GRAY] * 3), GRAY_TIFF), "imagej.tif": (np.stack([GRAY] * 3), {"imagej": True}),
    # Read by autoseg, but Pillow would change them without a word, or cannot read them.
    "deep_colour.tif": (np.dstack([DEEP] * 3), COLOUR_TIFF), "signed_8.tif": (GRAY.view(np.int8), GRAY_TIFF),
    "inverted_deep.tif": (DEEP, {"photometric": "miniswhite"}), "int32.tif": (DEEP.astype(np.int32), GRAY_TIFF),
    "four_bands.tif": (VARYING, {**COLOUR_TIFF, "extrasamples": ["unspecified"]}),
    "two_bands.tif": (VARYING[..., 2:], {**GRAY_TIFF, "extrasamples": ["unspecified"]}),
}  # fmt: skip
NOT_HERE = {
    "cmyk.jpg": "CMYK colours", "deep_colour.tif": "numbers of 16 bits", "signed_8.tif": "numbers of 8 bits",
    "inverted_deep.tif": "numbers of 16 bits", "int32.tif": "numbers of 32 bits",
    "four_bands.tif": "bands of no declared meaning", "two_bands.tif": "bands of no declared meaning",
}  # fmt: skip


@pytest.mark.parametrize("name", [*BY_PILLOW, *BY_TIFFFILE])
def test_a_picture_is_read_as_autoseg_reads_it_or_refused(name, tmp_path):
    path = tmp_path / name
    if name in BY_PILLOW:
        content, options = BY_PILLOW[name]
        picture = content if isinstance(content, Pillow.Image) else Pillow.fromarray(content)
        picture.save(path, **options)
    else:
        content, options = BY_TIFFFILE[name]
        tifffile.imwrite(path, content, **options)
    if name in NOT_HERE:
        with pytest.raises(program.UserError, match=f"{name} holds {NOT_HERE[name]}"):
            program.read_image(path)
        return
    try:
        expected = np.moveaxis(read_image(path).array, 0, 2)
    except AutosegError:
        with pytest.raises(program.UserError, match=name):
            program.read_image(path)
        return
    found, spacing = program.read_image(path)
    assert found.dtype == expected.dtype and np.array_equal(found, expected) and spacing is None


@pytest.mark.parametrize("end", [0, 1, 200, -2])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_a_damaged_picture_is_refused(name, end, tmp_path):
    Pillow.fromarray(SMOOTH).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:end])
    with pytest.raises(program.UserError, match=name):
        program.read_image(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_resizing_equals_opencvs(dtype):
    """8 bits to the last bit; others too, but for a rounding of float32."""
    random = np.random.default_rng(3)
    largest = 0.0
    for number in range(150):
        size, new = (tuple(int(one) for one in random.integers(1, 150, 2)) for _ in range(2))
        if number % 4 == 0:  # Whole factors have a path of their own.
            factors = random.integers(1, 6, 2)
            size = (new[0] * int(factors[0]), new[1] * int(factors[1]))
        values = random.integers(0, 256 if dtype == np.uint8 else 65536, (*size, 1 + number % 6)).astype(dtype)
        expected, found = resize_pixels(values, new), program.resize_pixels(values, new)
        assert found.dtype == dtype and found.shape == expected.shape
        difference = np.abs(found.astype(np.float64) - expected)
        largest = max(largest, float(difference.max()))
        assert dtype == np.float32 or (difference > 0).mean() <= (0 if dtype == np.uint8 else 1e-3)
    assert largest <= {np.uint8: 0, np.uint16: 1, np.float32: 0.02}[dtype]


@pytest.mark.parametrize("density", [0.05, 0.4, 0.55, 0.7, 0.98])
def test_post_processing_equals_that_of_autoseg(density):
    random = np.random.default_rng(int(density * 100))
    for size in ((1, 1), (1, 40), (40, 1), (37, 53), (90, 64)):
        mask = random.random(size) < density
        for options in (
            PostProcessing(min_object_fraction=0.004), PostProcessing(keep_largest=True), PostProcessing(fill_holes=True),
            PostProcessing(0.01, True, True),
        ):  # fmt: skip
            found = program.clean(mask, options.min_object_fraction, options.keep_largest, options.fill_holes)
            assert np.array_equal(found, postprocess.clean(mask, options)), (size, options)
    assert not program.clean(np.zeros((5, 6), bool), 0.1, True, True).any()


def test_cases_are_found_as_by_autoseg(tmp_path):
    names = [
        "a_0000.png", "a_0001.png", "b_0000.png", "c_0001.png", "d.png", "d.jpg", "e_0000.jpg", "e_0007.jpg", "f.tiff", "g.tif",
        "g.bmp", "D.bmp", "notes.txt", ".hidden.png",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(b"x") if "." not in name[1:] or name.endswith("txt") else _save(tmp_path / name)
    for channels in (1, 2, 3):
        expected = {job.output: list(job.images) for job in find_jobs(tmp_path, channels)}
        assert program.find_cases([tmp_path], channels, hide=False) == expected
    hidden = program.find_cases([tmp_path / "d.png"], 3, hide=True)
    assert hidden == {job.output: list(job.images) for job in find_jobs(tmp_path / "d.png", 3, names="hide")}


def _save(path):
    Pillow.fromarray(GRAY).save(path)


def dicom(path, values, **tags):
    """A DICOM file of values (H, W) or (H, W, 3)."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = values.dtype.itemsize * 8
    file.Rows, file.Columns, file.SamplesPerPixel = *values.shape[:2], 1 if values.ndim == 2 else 3
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    file.PhotometricInterpretation, file.PixelData = "MONOCHROME2" if values.ndim == 2 else "RGB", values.tobytes()
    if values.ndim == 3:
        file.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "values, tags",
    [
        (GRAY, {}), (DEEP, {"PixelSpacing": [0.5, 0.25]}), (COLOUR, {}), (DEEP, {"PhotometricInterpretation": "MONOCHROME1"}),
        (DEEP.view(np.int16), {"RescaleSlope": "2.5", "RescaleIntercept": "-1000"}), (GRAY, {"ImagerPixelSpacing": [0.1, 0.1]}),
        (DEEP.view(np.int16), {"PhotometricInterpretation": "MONOCHROME1"}),
    ],
)  # fmt: skip
def test_dicom_is_read_as_autoseg_reads_it(values, tags, tmp_path):
    path = dicom(tmp_path / "a.dcm", values, **tags)
    expected = read_image(path)
    found, spacing = program.read_image(path)
    assert found.dtype == expected.array.dtype and np.array_equal(found, np.moveaxis(expected.array, 0, 2))
    assert spacing == expected.spacing
    [name] = program.find_cases([path], 1, hide=False)
    assert name == f"{find_jobs(path, 1, names='auto')[0].name}.png" and name.startswith("case_")


def test_dicom_that_is_not_read_here_is_refused(tmp_path):
    frames = dicom(tmp_path / "frames.dcm", GRAY, NumberOfFrames=2, Rows=10)
    with pytest.raises(program.UserError, match=r"frames\.dcm is a DICOM file of several frames"):
        program.read_image(frames)
    tables = dicom(tmp_path / "tables.dcm", DEEP, HighBit=11)
    with pytest.raises(program.UserError, match=r"tables\.dcm is a DICOM file with tables"):
        program.read_image(tables)
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    with pytest.raises(program.UserError, match=r"no\.dcm cannot be read as DICOM"):
        program.read_image(tmp_path / "no.dcm")
