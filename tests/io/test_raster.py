"""Pictures: what OpenCV and Pillow each get wrong by themselves."""

import io
import subprocess
import sys

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from autoseg.io import raster, read_image, read_label, tiff, write_image, write_label
from autoseg.support.errors import AutosegError

RNG = np.random.default_rng(0)


def rgb(height=13, width=9, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours_come_as_rgb_planes(tmp_path, suffix):
    pixels = rgb()
    Pillow.fromarray(pixels).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    assert image.array.dtype == np.uint8
    assert (image.array == pixels.transpose(2, 0, 1)).all()
    assert image.spacing is None and image.notes == ()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg"])
def test_paths_beyond_ascii_and_an_opencv_that_cannot_open_them(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"größe{suffix}"
    Pillow.fromarray(rgb()).save(path)
    usual = read_image(path).array
    monkeypatch.setattr(cv2, "imread", lambda *_: None)
    assert (read_image(path).array == usual).all()


def test_jpeg_equals_the_reference_decoder(tmp_path):
    smooth = cv2.resize(rgb(4, 5), (60, 40), interpolation=cv2.INTER_CUBIC)
    Pillow.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Pillow.open(tmp_path / "a.jpg")).transpose(2, 0, 1).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg").array - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colours_keep_their_bits(tmp_path, suffix):
    pixels = rgb(dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), pixels[..., ::-1])
    image = read_image(tmp_path / f"a{suffix}")
    assert image.array.dtype == np.uint16 and (image.array == pixels.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        ("int16", "float32"),
        ("int32", "float32"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
def test_tiff_number_formats(tmp_path, dtype, expected):
    values = (RNG.random((7, 5)) * 100).astype(dtype) - (30 if np.dtype(dtype).kind in "if" else 0)
    values = values.astype(dtype)
    assert cv2.imwrite(str(tmp_path / "a.tif"), values)
    image = read_image(tmp_path / "a.tif")
    assert image.array.dtype == expected
    assert np.allclose(image.array[0], values)


def test_constant_alpha_is_dropped_and_a_varying_one_refused(tmp_path):
    pixels = np.dstack([rgb(), np.full((13, 9), 255, np.uint8)])
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image.array == pixels[..., :3].transpose(2, 0, 1)).all()
    assert image.notes == ("constant alpha channel dropped",)
    pixels[0, 0, 3] = 0
    Pillow.fromarray(pixels).save(tmp_path / "b.png")
    with pytest.raises(AutosegError, match=r"b\.png.*alpha"):
        read_image(tmp_path / "b.png")


def test_gray_with_alpha_stays_gray(tmp_path):
    gray = rgb()[..., 0]
    Pillow.merge("LA", [Pillow.fromarray(gray), Pillow.new("L", (9, 13), 255)]).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").array, gray[None])


def test_gray_of_16_bits_with_alpha_stays_gray(tmp_path):
    values = RNG.integers(0, 60000, (13, 9), dtype=np.uint16)
    pixels = np.dstack([values, np.full_like(values, 65535)])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    image = read_image(tmp_path / "a.png")
    assert image.array.dtype == np.uint16 and np.array_equal(image.array, values[None])
    assert (read_label(tmp_path / "a.png").array == values).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_applied_as_pillow_does(tmp_path, orientation, suffix):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    picture = Pillow.fromarray(cv2.resize(rgb(3, 4), (24, 16), interpolation=cv2.INTER_LINEAR))
    extra = {"tiffinfo": {274: orientation}} if suffix == ".tif" else {"exif": exif}
    picture.save(tmp_path / f"a{suffix}", **extra)
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(tmp_path / f"a{suffix}"))).transpose(2, 0, 1)
    image = read_image(tmp_path / f"a{suffix}")
    assert image.array.shape == expected.shape
    assert np.abs(image.array.astype(int) - expected).max() <= 1
    assert image.orientation == orientation


def test_cmyk_becomes_rgb(tmp_path):
    flat = Pillow.new("RGB", (16, 16), (200, 30, 90)).convert("CMYK")
    flat.save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.array.shape == (3, 16, 16) and "CMYK" in image.notes[0]
    assert np.abs(image.array.mean((1, 2)) - (200, 30, 90)).max() < 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.95])
def test_damaged_files_are_named(tmp_path, suffix, fraction):
    path = tmp_path / f"scan{suffix}"
    Pillow.fromarray(rgb(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=f"scan{suffix}") as caught:
            read(path)
        assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_files_cut_short_are_not_complained_of_twice(tmp_path, suffix, capfd):
    path = tmp_path / f"scan{suffix}"
    Pillow.fromarray(rgb(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(AutosegError):
        read_image(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"scan{suffix}"
    Pillow.fromarray(rgb(40, 40)).save(path)
    monkeypatch.setenv("AUTOSEG_MAX_PIXELS", "1599")
    for name in ("_decode_with_opencv", "_decode_page"):
        monkeypatch.setattr(raster if name == "_decode_with_opencv" else tiff, name, None)
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=f"scan{suffix} is too large: 40 x 40"):
            read(path)


def test_large_pictures_are_not_refused_by_pillow(tmp_path, monkeypatch):
    """Its limit is one for the whole process, and meant for pictures from the network."""
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 100)
    for suffix in (".png", ".jpg", ".bmp"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), np.zeros((20, 20), np.uint8))
        assert read_image(tmp_path / f"a{suffix}").array.shape == (1, 20, 20)
        assert read_label(tmp_path / f"a{suffix}").array.shape == (20, 20)


GLOBALS = """
import warnings, sys
import cv2
from PIL import Image
def state():
    levels = cv2.utils.logging.getLogLevel() if hasattr(cv2.utils, "logging") else cv2.getLogLevel()
    return Image.MAX_IMAGE_PIXELS, levels, cv2.getNumThreads(), list(warnings.filters)
before = state()
from autoseg.io import read_image, read_label
from autoseg.support.errors import AutosegError
for path in sys.argv[1:]:
    for read in (read_image, read_label):
        try:
            read(path)
        except AutosegError:
            assert "bad" in path, path
assert state() == before, (before, state())
"""


def test_reading_leaves_the_settings_of_pillow_and_opencv_as_they_were(tmp_path):
    paths = [tmp_path / f"{name}{suffix}" for name in ("good", "bad") for suffix in (".png", ".jpg", ".tif", ".bmp")]
    for path in paths:
        Pillow.fromarray(rgb()[..., 0]).save(path)
        if path.stem == "bad":
            path.write_bytes(path.read_bytes()[:-60])
    words = [sys.executable, "-c", GLOBALS, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_text_with_an_image_suffix_and_a_missing_file(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    for name in ("a.png", "missing.png"):
        with pytest.raises(AutosegError, match=name):
            read_image(tmp_path / name)


def test_pages_are_refused_but_thumbnails_are_not(tmp_path):
    page = Pillow.fromarray(rgb())
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(AutosegError, match="several pages"):
        read_image(tmp_path / "a.tif")
    page.save(tmp_path / "b.tif", save_all=True, append_images=[page.resize((3, 4))])
    assert read_image(tmp_path / "b.tif").array.shape == (3, 13, 9)


def test_not_a_number_is_refused(tmp_path):
    values = np.ones((4, 4), np.float32)
    values[1, 1] = np.nan
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    with pytest.raises(AutosegError, match=r"a\.tif holds 1 values"):
        read_image(tmp_path / "a.tif")


def test_palette_masks_give_indices(tmp_path):
    classes = RNG.integers(0, 3, (8, 6), dtype=np.uint8)
    mask = Pillow.fromarray(classes, mode="P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(tmp_path / "a.png")
    assert (read_label(tmp_path / "a.png").array == classes).all()


def test_palette_of_grays_out_of_order_gives_grays(tmp_path):
    classes = np.array([[0, 1], [1, 1]], np.uint8)
    mask = Pillow.fromarray(classes, mode="P")
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(tmp_path / "a.png")
    assert (read_label(tmp_path / "a.png").array == [[255, 0], [0, 0]]).all()


def test_one_bit_and_four_bit_masks_are_not_stretched(tmp_path):
    classes = RNG.integers(0, 2, (8, 6), dtype=np.uint8)
    Pillow.fromarray(classes * 255).convert("1").save(tmp_path / "one.png")
    assert (read_label(tmp_path / "one.png").array == classes).all()
    (tmp_path / "four.png").write_bytes(four_bit_png([[0, 1, 2], [3, 0, 1]]))
    assert (read_label(tmp_path / "four.png").array == [[0, 1, 2], [3, 0, 1]]).all()


def test_sixteen_bit_rgb_masks_keep_small_values(tmp_path):
    classes = RNG.integers(0, 3, (8, 6), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([classes] * 3))
    assert (read_label(tmp_path / "a.png").array == classes).all()


def test_colour_masks_are_refused_with_their_colours(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[1, 1] = (255, 0, 0)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(AutosegError, match=r"\(255, 0, 0\)"):
        read_label(tmp_path / "a.png")


def test_jpeg_masks_are_flagged_even_under_a_false_name(tmp_path):
    Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.jpg").read_bytes())
    assert read_label(tmp_path / "a.jpg").lossy and read_label(tmp_path / "b.png").lossy
    write_label(tmp_path / "c.png", np.zeros((8, 8), int))
    assert not read_label(tmp_path / "c.png").lossy


def test_float_masks_must_be_whole(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.array([[0, 1], [2, 1]], np.float32))
    assert read_label(tmp_path / "a.tif").array.dtype == np.uint8
    cv2.imwrite(str(tmp_path / "b.tif"), np.array([[0, 0.5]], np.float32))
    with pytest.raises(AutosegError, match="whole numbers"):
        read_label(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_masks_and_images_survive_a_round_trip(tmp_path, suffix):
    classes = RNG.integers(0, 5, (8, 6))
    write_label(tmp_path / f"m{suffix}", classes)
    assert (read_label(tmp_path / f"m{suffix}").array == classes).all()
    pixels = rgb().transpose(2, 0, 1)
    write_image(tmp_path / f"i{suffix}", pixels)
    assert (read_image(tmp_path / f"i{suffix}").array == pixels).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"i{suffix}", f"m{suffix}"]


def test_writing_refuses_what_would_lose_values(tmp_path):
    with pytest.raises(ValueError, match="masks are"):
        write_label(tmp_path / "a.jpg", np.zeros((4, 4), int))
    with pytest.raises(ValueError, match="masks are"):
        write_label(tmp_path / "a.png", np.full((4, 4), 0.5))
    with pytest.raises(ValueError, match="cannot hold"):
        write_image(tmp_path / "a.png", np.zeros((1, 4, 4), np.float32))
    assert list(tmp_path.iterdir()) == []


def four_bit_png(rows):
    """A 4-bit gray PNG; Pillow and OpenCV only write 8."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    width, height = len(rows[0]), len(rows)
    lines = b""
    for row in rows:
        padded = list(row) + [0] * (len(row) % 2)
        lines += b"\0" + bytes(a << 4 | b for a, b in zip(padded[::2], padded[1::2], strict=True))
    stream = io.BytesIO()
    stream.write(b"\x89PNG\r\n\x1a\n")
    stream.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)))
    stream.write(chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return stream.getvalue()


def test_pngs_with_a_transparent_colour_and_few_bits(tmp_path):
    gray = rgb()[..., 0]
    Pillow.fromarray(gray > 9).save(tmp_path / "bits.png")
    assert (read_image(tmp_path / "bits.png").array == (gray > 9)[None] * 255).all()
    assert (read_label(tmp_path / "bits.png").array == (gray > 9)).all()
    (tmp_path / "four.png").write_bytes(four_bit_png([[0, 1, 2], [3, 2, 1]]))
    assert (read_image(tmp_path / "four.png").array == np.array([[[0, 17, 34], [51, 34, 17]]])).all()
    pixels = rgb()
    pixels[3, 3] = (1, 2, 3)
    Pillow.fromarray(pixels).save(tmp_path / "key.png", transparency=(1, 2, 3))
    with pytest.raises(AutosegError, match="alpha"):
        read_image(tmp_path / "key.png")


@pytest.mark.parametrize("orientation", [1, 5, 8])
def test_png_masks_are_turned_upright(tmp_path, orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Pillow.fromarray(RNG.integers(0, 5, (30, 40), np.uint8)).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(path)))
    assert np.array_equal(read_label(path).array, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("strategy", [*range(5), None])
def test_pngs_of_any_filter_and_size_come_back(tmp_path, dtype, strategy):
    # Strategies are OpenCV's; none: as Pillow writes them.
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 90, (8, 2)):
        pixels = rng.integers(0, rng.integers(2, np.iinfo(dtype).max), (height, width, 3), dtype)
        gray, colours = tmp_path / f"{height}_{width}.png", tmp_path / "colours.png"
        if strategy is None:
            Pillow.fromarray(pixels[..., 0]).save(gray, optimize=True)
            Pillow.fromarray(pixels.astype(np.uint8)).save(colours, optimize=True)
            expected = pixels.astype(np.uint8)
        else:
            options = [cv2.IMWRITE_PNG_STRATEGY, strategy, cv2.IMWRITE_PNG_COMPRESSION, 2 * strategy]
            cv2.imwrite(str(gray), pixels[..., 0], options)
            cv2.imwrite(str(colours), pixels[..., ::-1], options)
            expected = pixels
        assert np.array_equal(read_image(gray).array[0], pixels[..., 0])
        assert np.array_equal(read_label(gray).array, pixels[..., 0])
        assert np.array_equal(read_image(colours).array, np.moveaxis(expected, 2, 0))
