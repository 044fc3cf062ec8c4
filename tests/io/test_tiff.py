"""TIFF files are what their tags say, whatever their number format, compression and layout."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from autoseg.io import read_image, read_label
from autoseg.support.errors import AutosegError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 4, (37, 45)).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (37, 45, 3)).astype(np.uint8)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 5}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lossless_compressions_give_the_stored_values(tmp_path, compression, layout, dtype):
    path, values = tmp_path / "a.tif", GRAY.astype(dtype) * np.array(60, dtype)
    tifffile.imwrite(path, values, photometric="minisblack", compression=compression, **layout)
    assert np.array_equal(read_image(path).array, values[None]) and read_image(path).array.dtype == dtype
    assert np.array_equal(read_label(path).array, values)


def test_jpeg_2000_gives_the_stored_values(tmp_path):
    options = {"compression": "jpeg2000", "compressionargs": {"reversible": True}}
    tifffile.imwrite(tmp_path / "a.tif", COLOURS, photometric="rgb", **options)
    assert np.array_equal(read_image(tmp_path / "a.tif").array, np.moveaxis(COLOURS, 2, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "float16"])
def test_colours_stored_plane_by_plane(tmp_path, dtype):
    values = COLOURS.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(values, 2, 0).copy(), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(tmp_path / "a.tif").array, np.moveaxis(values, 2, 0))


def packed(path, values, bits):
    """A gray TIFF whose rows are packed bits; not every release of tifffile writes them."""
    places = np.arange(bits)[::-1]
    data = np.packbits((values[..., None] >> places & 1).reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()
    height, width = values.shape
    tags = ((256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_values_of_odd_bits_are_not_stretched(tmp_path, bits):
    values = RNG.integers(0, 1 << bits, (37, 45))
    packed(tmp_path / "a.tif", values, bits)
    assert np.array_equal(read_label(tmp_path / "a.tif").array, values)
    if bits > 1:  # One bit is black and white.
        assert np.array_equal(read_image(tmp_path / "a.tif").array[0], values)


def test_one_bit_is_black_and_white_as_an_image_and_a_class_as_a_mask(tmp_path):
    Pillow.fromarray(GRAY > 1).save(tmp_path / "a.tif", compression="packbits")
    assert np.array_equal(read_image(tmp_path / "a.tif").array[0], (GRAY > 1) * 255)
    assert np.array_equal(read_label(tmp_path / "a.tif").array, GRAY > 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_may_be_zero(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(dtype), photometric="miniswhite")
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(image.array[0], np.iinfo(dtype).max - GRAY.astype(dtype)) and "inverted" in image.notes[0]


def test_palettes_give_colours_to_images_and_indices_to_masks(tmp_path):
    palette = RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="palette", colormap=palette * 257)
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(image.array, palette[:, GRAY]) and image.notes == ("palette colours resolved",)
    assert np.array_equal(read_label(tmp_path / "a.tif").array, GRAY)
    falling = np.repeat(np.arange(255, -1, -1)[None] * 257, 3, 0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", GRAY, photometric="palette", colormap=falling)
    assert np.array_equal(read_label(tmp_path / "b.tif").array, GRAY)  # ImageJ shows masks so.


def test_cmyk_becomes_rgb_as_pillow_makes_it(tmp_path):
    picture = Pillow.fromarray(COLOURS).convert("CMYK")
    picture.save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1).astype(int)
    assert np.abs(image.array - expected).max() <= 1 and image.notes == ("CMYK converted to RGB",)


def test_jpeg_in_tiff_is_colour_and_lossy(tmp_path):
    smooth = np.linspace((20, 90, 200), (150, 30, 100), 64 * 48).reshape(48, 64, 3).astype(np.uint8)
    stored = np.asarray(Pillow.fromarray(smooth).convert("YCbCr"))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="ycbcr", compression="jpeg")
    assert np.abs(read_image(tmp_path / "a.tif").array - smooth.transpose(2, 0, 1).astype(int)).mean() < 3
    tifffile.imwrite(tmp_path / "b.tif", smooth[..., 0].copy(), photometric="minisblack", compression="jpeg")
    assert read_label(tmp_path / "b.tif").lossy


def test_a_compression_that_cannot_be_undone_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRAY, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(34676)
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=r"a\.tif is compressed with SGILOG(.|\n)*save it with LZW"):
            read(path)


@pytest.mark.parametrize("kind", ["LAB", "YCbCr"])
def test_other_colour_models_are_named(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", COLOURS, photometric="cielab" if kind == "LAB" else "ycbcr")
    with pytest.raises(AutosegError, match=r"a\.tif stores its colours as (CIELAB|YCBCR)"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_masks_are_turned_with_their_images(tmp_path, orientation):
    tags = [(274, "H", 1, orientation, True)]
    for name, values in (("image", GRAY.astype(np.uint16)), ("mask", GRAY)):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="minisblack", extratags=tags)
    image, mask = read_image(tmp_path / "image.tif"), read_label(tmp_path / "mask.tif")
    assert image.orientation == orientation and np.array_equal(image.array[0], mask.array)
    assert image.array.shape[1:] == ((45, 37) if orientation == 6 else (37, 45))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "jpeg"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_files_cut_short_are_refused(tmp_path, compression, layout, share):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOURS, photometric="rgb", compression=compression, **layout)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=r"a\.tif"):
            read(path)
