"""TIFF: photometric x planes x bands x type x compression x page layout, against what tifffile reads."""

import numpy as np
import pytest

from autoseg.io import read_image, read_label
from autoseg.io.tiff_reader import TiffRows
from autoseg.support.errors import AutosegError
from tests.io.tiff_matrix import (
    KINDS,
    LAYOUTS,
    REFUSED_LAYOUTS,
    SIZE,
    as_tifffile_reads,
    codecs_for,
    combinations,
    values_of,
    write,
    write_tags,
)

CASES = [(kind, dtype) for kind in KINDS for dtype in kind.types]


@pytest.mark.parametrize(("kind", "dtype"), CASES, ids=[f"{kind.title}, {dtype}" for kind, dtype in CASES])
def test_every_kind_is_read_as_its_tags_say(tmp_path, kind, dtype):
    path = tmp_path / "a.tif"
    for planar, compression, layout in combinations(kind, dtype):
        for read, expect, mask in ((read_image, kind.image, False), (read_label, kind.mask, True)):
            write(path, kind, values_of(kind, dtype, mask), planar, compression, layout)
            where = (read.__name__, planar, compression, layout.title)
            if expect is None:
                with pytest.raises(AutosegError) as caught:
                    read(path)
                assert str(path) in caught.value.problem and "damaged" not in str(caught.value), where
                continue
            result, expected = read(path), expect(as_tifffile_reads(path, layout, planar))
            values = result.array if mask else np.moveaxis(result.array, 0, 2).squeeze()
            assert values.shape == expected.shape and np.array_equal(values, expected), (*where, result.notes)
            stored = values_of(kind, dtype, mask)
            assert mask or result.notes or dtype == "bool" or np.array_equal(expected, stored), where


@pytest.mark.parametrize("layout", REFUSED_LAYOUTS, ids=lambda layout: layout.title)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_files_of_several_images_are_refused(tmp_path, layout, dtype):
    write(tmp_path / "a.tif", KINDS[0], values_of(KINDS[0], dtype), layout=layout)
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=r"a\.tif (holds|is a volume)"):
            read(tmp_path / "a.tif")
    assert TiffRows.open(tmp_path / "a.tif") is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_row_by_row_gives_the_same(tmp_path, layout):
    path, opened = tmp_path / "a.tif", 0
    for number, (kind, dtype) in enumerate(CASES):
        if kind.image is None:
            continue
        codecs = codecs_for(dtype)
        write(path, kind, values_of(kind, dtype), compression=codecs[number % len(codecs)], layout=layout)
        rows = TiffRows.open(path)
        if rows is not None:
            opened += 1
            with rows:
                assert np.array_equal(np.moveaxis(rows.rows(0, rows.size[0]), 2, 0), read_image(path).array), (
                    kind.title,
                    dtype,
                )
    assert opened >= 6


@pytest.mark.parametrize(
    ("bits", "options", "words"),
    [
        ([5, 6, 5], {"photometric": 2}, "stores unsigned numbers of 5, 6, 5 bits"),
        ([8, 8, 16], {"photometric": 2}, "stores unsigned numbers of 8, 8, 16 bits"),
        ([32], {"photometric": 1, "sample_format": 5}, "stores complex integer numbers of 32 bits"),
        ([128], {"photometric": 1, "sample_format": 3}, "stores float numbers of 128 bits"),
    ],
)
def test_number_formats_that_are_not_read_are_named(tmp_path, bits, options, words):
    path = write_tags(tmp_path / "a.tif", bits, **options)
    for read in (read_image, read_label):
        with pytest.raises(AutosegError, match=words):
            read(path)


def test_without_the_photometric_tag_zero_is_black(tmp_path):
    path = write_tags(tmp_path / "a.tif", [8], photometric=None)
    for result in (read_image(path), read_label(path)):
        assert not result.array.any() and "zero taken as black" in result.notes[0]


def test_a_palette_with_alpha_gives_colours_to_images_and_indices_to_masks(tmp_path):
    path = write_tags(tmp_path / "a.tif", [8, 8], photometric=3, extras=[2])
    assert read_image(path).array.shape[0] == 3 and read_label(path).array.ndim == 2


def test_colours_of_one_bit(tmp_path):
    values = np.random.default_rng(0).integers(0, 2, (*SIZE, 3)).astype(np.uint8)
    packed = np.packbits(values.reshape(SIZE[0], -1), axis=1).tobytes()
    path = write_tags(tmp_path / "a.tif", [1, 1, 1], photometric=2, data=packed)
    assert np.array_equal(read_image(path).array, np.moveaxis(values, 2, 0) * 255)
