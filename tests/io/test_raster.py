"""Pictures: what OpenCV and Pillow each get wrong by themselves."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from autoseg.io import raster, read_image, read_label, write_image, write_label
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
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_files_are_read_from_the_disk_to_the_same_values(tmp_path, monkeypatch, suffix, orientation):
    tags = Pillow.Exif()
    tags[0x0112] = orientation
    Pillow.fromarray(rgb()).save(tmp_path / f"a{suffix}", **({} if suffix == ".bmp" else {"exif": tags}))
    usual = read_image(tmp_path / f"a{suffix}")
    monkeypatch.setattr(raster, "_LARGE_FILE", 1)
    large = read_image(tmp_path / f"a{suffix}")
    assert (large.array == usual.array).all() and (large.notes, large.orientation) == (usual.notes, usual.orientation)
    cut = (tmp_path / f"a{suffix}").read_bytes()[:-60]
    (tmp_path / f"cut{suffix}").write_bytes(cut)
    if suffix in (".png", ".jpg"):
        with pytest.raises(AutosegError, match="cannot be read"):
            read_image(tmp_path / f"cut{suffix}")


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
    assert (read_image(tmp_path / "a.png").array == gray[None]).all()


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
    if suffix != ".tif":
        assert image.orientation == orientation


def test_cmyk_becomes_rgb(tmp_path):
    flat = Pillow.new("RGB", (16, 16), (200, 30, 90)).convert("CMYK")
    flat.save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.array.shape == (3, 16, 16) and "CMYK" in image.notes[0]
    assert np.abs(image.array.mean((1, 2)) - (200, 30, 90)).max() < 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_damaged_files_are_named(tmp_path, suffix, kept):
    path = tmp_path / f"scan{suffix}"
    Pillow.fromarray(rgb(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=f"scan{suffix}") as caught:
            read(path)
        assert caught.value.remedy


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


@pytest.fixture(params=["among threads", "among threads, large", "alone"])
def alone(request, monkeypatch):
    """Whether no other threads are at work: that and the size of a picture change the decoder."""
    monkeypatch.setattr(raster, "alone", lambda: request.param == "alone")
    if "large" in request.param:
        monkeypatch.setattr(raster, "_BRIEF", 0)
    return request.param == "alone"


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_have_one_decoder_and_the_values_of_the_other(tmp_path, dtype, channels, alone, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (30, 40, channels)).astype(dtype)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    data = (tmp_path / "a.png").read_bytes()
    found = raster._plain_png(data)
    if dtype == "uint16" and channels == 1 and not alone:
        assert found is None
    else:
        assert found is not None and found.dtype == dtype and np.array_equal(found, pixels if channels == 3 else pixels[..., 0])
    assert np.array_equal(read_image(tmp_path / "a.png").array, np.moveaxis(pixels, 2, 0))
    monkeypatch.setattr(raster, "_plain_png", lambda data: None)
    assert np.array_equal(read_image(tmp_path / "a.png").array, np.moveaxis(pixels, 2, 0))


@pytest.mark.parametrize("orientation", [1, 5, 8])
def test_png_masks_have_one_decoder_and_the_values_of_the_other(tmp_path, orientation, monkeypatch):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Pillow.fromarray(np.random.default_rng(0).integers(0, 5, (30, 40), np.uint8)).save(path, exif=exif)
    found = read_label(path)
    assert raster._plain_png(path.read_bytes()) is not None
    monkeypatch.setattr(raster, "_plain_png", lambda data: None)
    expected = read_label(path)
    assert np.array_equal(found.array, expected.array) and found.array.shape == ((30, 40) if orientation == 1 else (40, 30))
    assert (found.notes, found.lossy) == (expected.notes, expected.lossy)


def test_png_files_of_other_kinds_have_the_usual_decoders(tmp_path, alone):
    colours = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    gray = colours[..., 0]
    Pillow.fromarray(colours).save(tmp_path / "key.png", transparency=(1, 2, 3))
    Pillow.fromarray(gray).save(tmp_path / "gray_key.png", transparency=7)
    Pillow.fromarray(gray > 9).save(tmp_path / "bits.png")
    Pillow.fromarray(gray).convert("P").save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "alpha.png"), np.zeros((8, 9, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "deep_alpha.png"), np.zeros((8, 9, 4), np.uint16))
    (tmp_path / "four_bits.png").write_bytes(four_bit_png([[0, 1, 2], [3, 2, 1]]))
    refused = {path.stem: path.read_bytes() for path in tmp_path.iterdir()} | {"empty": b""}
    deep = {"deep": gray.astype(np.uint16), "deep_colours": colours.astype(np.uint16)} if alone else {}
    for kind, pixels in {"colours": colours, "gray": gray, **deep}.items():
        cv2.imwrite(str(tmp_path / f"{kind}.png"), pixels)
        whole = (tmp_path / f"{kind}.png").read_bytes()
        assert raster._plain_png(whole) is not None
        refused[f"half of {kind}"] = whole[: len(whole) // 2]
        refused[f"damaged {kind}"] = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
        refused[f"interlaced {kind}"] = whole[:28] + b"\1" + whole[29:]
    assert {name: raster._plain_png(data) for name, data in refused.items()} == dict.fromkeys(refused)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("strategy", [*range(5), None])
def test_pngs_of_any_filter_and_size_come_back(tmp_path, dtype, strategy, alone):
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
        assert raster._plain_png(colours.read_bytes()) is not None
        assert (raster._plain_png(gray.read_bytes()) is not None) == (alone or dtype == "uint8")
        assert np.array_equal(read_image(gray).array[0], pixels[..., 0])
        assert np.array_equal(read_label(gray).array, pixels[..., 0])
        assert np.array_equal(read_image(colours).array, np.moveaxis(expected, 2, 0))
