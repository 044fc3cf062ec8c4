"""Oversized, damaged and too large images: refused by their header, one failed case each, whatever a decoder raises."""

from __future__ import annotations

import io
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import EpsImagePlugin
from PIL import Image as Pillow
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from autoseg import api
from autoseg.cli import convert, evaluate, fingerprint, predict
from autoseg.io import raster, read_image, read_label, write_image, write_label
from autoseg.io.dicom import count_frames
from autoseg.io.tiff_reader import TiffRows
from autoseg.prediction import large_image
from autoseg.prediction.files import PredictionReport, predict_files
from autoseg.prediction.predictor import Predictor
from autoseg.support.errors import AutosegError
from autoseg.support.parallel import parallel_map
from autoseg.support.pixel_limit import max_pixels, pixel_limit
from dataset_conversion.reading import read_image_entry
from dataset_conversion.source import Source
from tests.prediction.conftest import bright_is_registered
from tests.prediction.stand_in import picture, trained, write_fold

__all__ = ["bright_is_registered"]
HUGE = 100_000
LIMIT = "AUTOSEG_MAX_PIXELS"


def png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(900))) + chunk(b"IEND", b"")


def encoded(suffix: str, size: int = 8) -> bytes:
    return cv2.imencode(suffix, np.zeros((size, size, 3), np.uint8))[1].tobytes()


def jpeg(side: int) -> bytes:
    data = encoded(".jpg")
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", min(side, 65500), min(side, 65500)) + data[start + 4 :]


def bmp(side: int) -> bytes:
    data = encoded(".bmp")
    return data[:18] + struct.pack("<ii", side, side) + data[26:]


def tiff(side: int, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((16, 16, 3), np.uint8), photometric="rgb", **options)
    data = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        for tag in ("ImageWidth", "ImageLength"):
            entry = file.pages[0].tags[tag]
            data[entry.offset : entry.offset + 12] = struct.pack("<HHII", entry.code, 4, 1, side)
    return bytes(data)


def gif(side: int) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(stream, "GIF")
    data = stream.getvalue()
    return data[:6] + struct.pack("<HH", min(side, 65535), min(side, 65535)) + data[10:]


def ppm(side: int) -> bytes:
    return b"P6\n%d %d\n255\n" % (side, side) + bytes(300)


def nifti(side: int) -> bytes:
    header = bytearray(352)
    header[:4] = struct.pack("<i", 348)
    header[40:56] = struct.pack("<8h", 3, min(side, 32767), min(side, 32767), 1, 1, 1, 1, 1)
    header[70:74] = struct.pack("<2h", 2, 8)
    header[108:112], header[344:348] = struct.pack("<f", 352), b"n+1\0"
    return bytes(header)


def mha(side: int) -> bytes:
    lines = [
        "ObjectType = Image",
        "NDims = 2",
        f"DimSize = {side} {side}",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    ]
    return "\n".join([*lines, ""]).encode() + bytes(300)


def nrrd(side: int) -> bytes:
    return f"NRRD0004\ntype: uchar\ndimension: 2\nsizes: {side} {side}\nencoding: raw\n\n".encode() + bytes(300)


def dicom(side: int, frames: int = 1) -> bytes:
    tags = pydicom.Dataset()
    tags.SOPClassUID, tags.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    tags.Rows = tags.Columns = min(side, 65535)
    tags.SamplesPerPixel, tags.PhotometricInterpretation, tags.NumberOfFrames = 1, "MONOCHROME2", frames
    tags.BitsAllocated = tags.BitsStored = 8
    tags.HighBit, tags.PixelRepresentation, tags.PixelData = 7, 0, bytes(300)
    tags.file_meta = pydicom.dataset.FileMetaDataset()
    tags.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    tags.file_meta.MediaStorageSOPClassUID, tags.file_meta.MediaStorageSOPInstanceUID = tags.SOPClassUID, "1.2.3"
    stream = io.BytesIO()
    tags.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


# Files of at most 3 kB that declare at least a billion pixels.
BOMBS: dict[str, Callable[[int], bytes]] = {
    "png.png": png,
    "jpeg.jpg": jpeg,
    "bmp.bmp": bmp,
    "strips.tif": partial(tiff, rowsperstrip=4),
    "tiles.tif": partial(tiff, tile=(16, 16), compression="zlib"),
    "mha.mha": mha,
    "nrrd.nrrd": nrrd,
    "dicom.dcm": dicom,
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three good images, and their masks next to the folder."""
    for number in range(3):
        image, mask = picture((40, 60), (10, 12, 30, 40 + number))
        write_image(tmp_path / "photos" / f"good{number}.png", image)
        write_label(tmp_path / "masks" / f"good{number}.png", mask)
    return tmp_path / "photos"


def run(photos: Path, **options: Any) -> PredictionReport:
    predictor = Predictor([trained(geometry="patch", size=(32, 32), batch=1)])
    return predict_files(predictor, photos, photos.parent / "out", dicom_masks="png", names="keep", **options)


@pytest.mark.parametrize("name", [*BOMBS, "gif.gif", "ppm.ppm"])
def test_a_small_file_that_declares_a_billion_pixels_is_refused_by_its_header(name: str, tmp_path: Path) -> None:
    make = {**BOMBS, "gif.gif": gif, "ppm.ppm": ppm}[name]
    (tmp_path / name).write_bytes(make(HUGE))
    assert (tmp_path / name).stat().st_size < 3000
    tracemalloc.start()
    try:
        with (
            pytest.raises(AutosegError, match=rf"{name} is too large: \d+ x \d+ pixels\n.*--max-pixels"),
            Source(tmp_path) as source,
        ):
            read_image_entry(source.entries[0]) if name in ("gif.gif", "ppm.ppm") else read_image(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_bombs_are_failed_cases_of_a_prediction(photos: Path) -> None:
    for name, make in BOMBS.items():
        (photos / name).write_bytes(make(HUGE if name != "tiles.tif" else 10 * HUGE))
    for overwrite in (True, False):
        report = run(photos, overwrite=overwrite)
        assert len(report.failed) == len(BOMBS) and len(report.record.cases) == 3
        assert all(name in " ".join(report.failed.values()) for name in BOMBS)
    assert report.cases == (), "the second run predicts nothing again"


@pytest.fixture
def root(tmp_path: Path, photos: Path, bright_is_registered: None) -> Path:
    """A root with a raw dataset and a fold of a network that needs no training."""
    api.convert_folders(photos, tmp_path / "masks", "Tiny", root=tmp_path / "root")
    write_fold(tmp_path / "root" / "results" / "Dataset501_Tiny" / "bright" / "fold_0")
    return tmp_path / "root"


def test_every_command_names_the_file_and_its_exit_code_is_right(
    root: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, where = root / "raw" / "Dataset501_Tiny", ["--root", str(root)]
    (photos / "bomb.png").write_bytes(png(HUGE))
    arguments = ["-i", str(photos), "-o", str(tmp_path / "out"), "-d", "501", "-m", "bright", *where]
    for more in ([], ["--continue"]):
        assert predict.main([*arguments, *more]) == 1
        assert "bomb.png is too large: 100000 x 100000 pixels" in capsys.readouterr().out
    shutil.copy(tmp_path / "masks" / "good0.png", tmp_path / "masks" / "bomb.png")
    assert convert.main([*where, "folders", "--images", str(photos), "--masks", str(tmp_path / "masks"), "--name", "New"]) == 2
    assert "bomb.png is too large" in capsys.readouterr().err
    (raw / "imagesTr" / "good1_0000.png").write_bytes(png(HUGE))
    (raw / "labelsTr" / "good2.png").write_bytes(png(HUGE))
    assert fingerprint.main(["Tiny", *where]) == 2
    messages = capsys.readouterr().err
    assert "good1_0000.png is too large" in messages and "good2.png is too large" in messages
    assert evaluate.main([str(tmp_path / "out"), str(raw / "labelsTr")]) == 2
    assert "good2.png is too large" in capsys.readouterr().err


def test_max_pixels_raises_and_lowers_the_limit_for_one_command(
    root: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where, masks = ["--root", str(root)], str(tmp_path / "masks")
    commands = [
        (predict.main, ["-i", str(photos), "-o", str(tmp_path / "out"), "-d", "501", "-m", "bright", *where], 1),
        (evaluate.main, [masks, masks], 2),
        (convert.main, [*where, "folders", "--images", str(photos), "--masks", masks, "--name", "New"], 2),
        (fingerprint.main, ["New", *where], 2),
    ]
    monkeypatch.setenv(LIMIT, "2399")
    for main, arguments, code in commands:
        if main is not fingerprint.main:
            assert main(arguments) == code
            output = capsys.readouterr()
            assert "is too large: 60 x 40 pixels" in output.out + output.err
        assert main([*arguments, "--max-pixels", "2400"]) == 0
        assert max_pixels() == 2399
    assert predict.main([*commands[0][1], "--max-pixels", "100"]) == 1
    monkeypatch.setenv(LIMIT, "many")
    assert evaluate.main([masks, masks]) == 2 and "AUTOSEG_MAX_PIXELS is 'many'" in capsys.readouterr().err


def limit_of_worker(item: int) -> int:
    return max_pixels()


def test_worker_processes_have_the_limit_of_their_parent() -> None:
    """Also if the server that starts them is older than the limit."""
    for limit in (5_000, 6_000):
        with pixel_limit(limit):
            assert set(parallel_map(limit_of_worker, range(4), 2, processes=True)) == {limit}


def insufficient() -> cv2.error:
    return cv2.error("OpenCV(4.13.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 30000000000 bytes")


ERRORS = [
    MemoryError,
    insufficient,
    partial(RuntimeError, "Failed to allocate memory for image."),
    partial(RuntimeError, "std::bad_alloc"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["python", "opencv", "itk", "c++"])
def test_low_memory_while_decoding_is_one_failed_case(
    error: Callable[[], Exception], root: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_image, decode_mask = raster._decode_image, raster._decode_label
    raw = root / "raw" / "Dataset501_Tiny" / "labelsTr"

    def fail(decode: Any, path: Path) -> Any:
        if "good1" in path.name:
            raise error()
        return decode(path)

    monkeypatch.setattr(raster, "_decode_image", partial(fail, decode_image))
    monkeypatch.setattr(raster, "_decode_label", partial(fail, decode_mask))
    for overwrite in (True, False):
        report = run(photos, overwrite=overwrite)
        assert len(report.record.cases) == 2 and "memory of this machine" in report.failed["good1"]
    for attempt in (
        lambda: api.convert_folders(photos, photos.parent / "masks", "New", root=root),
        lambda: api.fingerprint("Tiny", root=root),
        lambda: api.evaluate(raw, raw),
    ):
        with pytest.raises(AutosegError, match="good1.*is too large for the memory of this machine"):
            attempt()


@pytest.mark.parametrize("error", ERRORS[:2], ids=["python", "opencv"])
@pytest.mark.parametrize("stage", ["prepare", "infer", "label_map", "assess"])
def test_low_memory_in_any_stage_is_one_failed_case(
    stage: str, error: Callable[[], Exception], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(photos / "wide.png", picture((40, 333), (10, 12, 30, 40))[0])
    original = getattr(Predictor, stage)

    def fail(self: Predictor, *arguments: Any) -> Any:
        if "333" in str([getattr(one, "shape", getattr(one, "size", one)) for one in arguments]):
            raise error()
        return original(self, *arguments)

    def fail_batch(self: Predictor, prepared: Any) -> Any:
        if any(one.size[1] == 333 for one in prepared):
            raise error()
        return original(self, prepared)

    monkeypatch.setattr(Predictor, stage, fail_batch if stage == "infer" else fail)
    report = run(photos)
    assert set(report.failed) == {"wide"} and "memory" in report.failed["wide"] and len(report.cases) == 3
    assert not (photos.parent / "out" / "wide.png").exists()


def test_low_memory_while_cases_are_stored_and_measured_names_them(
    root: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("dataset_conversion.storing._hash_pixels", fail)
    monkeypatch.setattr("autoseg.fingerprint.case.compute_histogram", fail)
    for attempt in (
        lambda: api.convert_folders(photos, photos.parent / "masks", "New", root=root),
        lambda: api.fingerprint("Tiny", root=root),
    ):
        with pytest.raises(AutosegError, match=r"good0.*\n.*good1.*\n.*good2"):
            attempt()


KINDS: dict[str, dict[str, Any]] = {
    "deflated": {"compression": "zlib", "photometric": "rgb"},
    "jpeg": {"compression": "jpeg", "photometric": "ycbcr"},
    "jpeg rgb": {"compression": "jpeg", "photometric": "rgb"},
    "planes": {"planarconfig": "separate", "photometric": "rgb"},
    "deflated planes": {"planarconfig": "separate", "photometric": "rgb", "compression": "zlib"},
    "white is zero": {"photometric": "miniswhite"},
    "deflated white is zero": {"photometric": "miniswhite", "compression": "zlib"},
    "palette": {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85},
    "gray": {"photometric": "minisblack", "compression": "lzw"},
    "predictor": {"photometric": "rgb", "compression": "zlib", "predictor": 2},
}


@pytest.mark.parametrize("parts", [{"tile": (32, 48)}, {"rowsperstrip": 7}, {}], ids=["tiles", "strips", "one strip"])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_tiff_are_those_of_the_whole(kind: str, parts: dict[str, Any], tmp_path: Path) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (150, 170, 3), np.uint8), (0, 0), 4)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    values = image if KINDS[kind]["photometric"] in ("rgb", "ycbcr") else image[..., 0]
    values = np.moveaxis(values, 2, 0) if "planarconfig" in KINDS[kind] else values
    tifffile.imwrite(tmp_path / "a.tif", values, **KINDS[kind], **parts)
    expected = np.moveaxis(read_image(tmp_path / "a.tif").array, 0, 2)
    rows = TiffRows.open(tmp_path / "a.tif")
    assert rows is not None
    with rows:
        assert (*rows.size, rows.channels) == expected.shape
        for start, stop in ((0, 20), (15, 100), (100, 101), (3, 150)):
            assert np.array_equal(rows.rows(start, stop), expected[start:stop])


@pytest.mark.parametrize("kind", ["deflated", "jpeg"])
def test_a_tiled_tiff_beyond_the_limit_is_predicted_in_parts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = picture((150, 170), (40, 50, 110, 140))
    (tmp_path / "photos").mkdir()
    tifffile.imwrite(tmp_path / "photos" / "slide.tif", np.moveaxis(image, 0, 2), tile=(32, 48), **KINDS[kind])
    monkeypatch.setenv(LIMIT, "1000")
    monkeypatch.setattr(large_image, "LARGE", 1)
    report = run(tmp_path / "photos")
    assert not report.failed
    monkeypatch.delenv(LIMIT)
    assert (read_label(tmp_path / "out" / "slide.tif").array == mask).mean() > 0.99


def test_rows_of_tiles_take_little_memory(tmp_path: Path) -> None:
    side, tile = 4096, 128
    tifffile.imwrite(
        tmp_path / "a.tif", (np.zeros((tile, tile), np.uint8) for _ in range((side // tile) ** 2)), shape=(side, side),
        dtype=np.uint8, tile=(tile, tile), compression="zlib",
    )  # fmt: skip
    rows = TiffRows.open(tmp_path / "a.tif")
    assert rows is not None
    tracemalloc.start()
    try:
        with rows:
            for start in range(0, side, 64):
                rows.rows(start, start + 64)
        assert tracemalloc.get_traced_memory()[1] < side * side / 8
    finally:
        tracemalloc.stop()


def scan(suffix: str, folder: Path) -> bytes:
    path = folder / f"whole{suffix}"
    image = np.random.default_rng(1).integers(0, 255, (20, 24), np.uint8)
    if suffix == ".dcm":
        return dicom(16)
    if suffix in (".nii", ".mha", ".nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(image), str(path))
    else:
        write_image(path, image[None]) if suffix != ".jpg" else path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".nii", ".mha", ".nrrd", ".dcm"])
def test_whatever_damage_does_the_error_names_the_file(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes of the header set to other values, and files cut anywhere."""
    whole, random = scan(suffix, tmp_path), np.random.default_rng(2)
    path = tmp_path / f"damaged{suffix}"
    for number in range(80):
        data = bytearray(whole)
        for place in random.integers(0, min(len(data), 700), int(random.integers(1, 4))):
            data[place] = random.choice([0, 1, 127, 255, int(random.integers(256))])
        path.write_bytes(bytes(data[: random.integers(1, len(data))] if number % 4 == 0 else data))
        for read in (read_image, read_label):
            try:
                read(path)
            except AutosegError as error:
                assert path.name in error.problem


def test_a_decoder_that_fails_in_its_own_way_is_one_failed_case(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = raster._decode_image

    def fail(path: Path) -> Any:
        if "good1" in path.name:
            raise ZeroDivisionError("in a decoder")
        return decode(path)

    monkeypatch.setattr(raster, "_decode_image", fail)
    report = run(photos)
    assert len(report.cases) == 2
    assert report.failed["good1"] == f"{photos / 'good1.png'} cannot be read: ZeroDivisionError: in a decoder"


def test_a_file_that_must_not_be_opened_is_one_failed_case(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "good1.png" and self.parent == photos:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    report = run(photos)
    assert len(report.cases) == 2 and "Permission denied" in report.failed["good1"]


def test_a_damaged_reference_is_a_warning(photos: Path) -> None:
    (photos.parent / "masks" / "good1.png").write_bytes(png(HUGE))
    report = run(photos, overlays=True, references=photos.parent / "masks")
    warnings = {case.case: case.warnings for case in report.record.cases}
    assert not report.failed and "good1.png is too large" in warnings["good1"][-1]
    assert (photos.parent / "out" / "overlays" / "good1.png").is_file()


def test_a_dicom_file_cannot_declare_more_frames_than_it_has_bytes(photos: Path) -> None:
    (photos / "video.dcm").write_bytes(dicom(16, frames=2**31 - 1))
    assert count_frames(photos / "video.dcm") == 1
    report = run(photos)
    assert set(report.failed) == {"video"} and len(report.cases) == 3


def test_a_deflated_dicom_file_that_fills_the_memory_is_refused(photos: Path) -> None:
    """pydicom inflates all of a file to read one of its tags."""
    tags = pydicom.dcmread(io.BytesIO(dicom(16)))
    tags.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    tags.save_as(stream, enforce_file_format=True)
    (photos / "whole.dcm").write_bytes(stream.getvalue())
    start = 144 + int.from_bytes(stream.getvalue()[140:144], "little")
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), bytes(1 << 20)
    parts = [packer.compress(zeros) for _ in range(300)]
    (photos / "bomb.dcm").write_bytes(stream.getvalue()[:start] + b"".join(parts) + packer.flush())
    tracemalloc.start()
    try:
        report = run(photos)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert set(report.failed) == {"bomb"} and "would inflate to more than" in report.failed["bomb"]
    assert "whole" in report.cases


def test_postscript_under_the_name_of_a_picture_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands it to Ghostscript."""
    called: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: called.append(arguments))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=r"a\.png cannot be read"):
            read(tmp_path / "a.png")
    assert not called


def test_nifti_headers_are_checked_before_the_file_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nii").write_bytes(nifti(HUGE))
    monkeypatch.setenv(LIMIT, str(32767 * 32766))
    with pytest.raises(AutosegError, match=r"a\.nii is too large: 32767 x 32767"):
        read_image(tmp_path / "a.nii")
