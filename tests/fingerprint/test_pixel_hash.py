from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash

from autoseg.fingerprint.pixel_hash import pixel_hash
from autoseg.io import read_image, write_image

GRAY = np.random.default_rng(0).integers(0, 256, (1, 37, 53), np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (3, 37, 53), np.uint8)


def test_the_documented_text_and_planes_are_hashed() -> None:
    expected = xxhash.xxh3_128(b"3 (37, 53) uint8" + RGB.tobytes()).hexdigest()
    assert pixel_hash(list(RGB)) == expected and len(expected) == 32


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_larger_types_with_the_same_values_are_the_same_picture(kind: str) -> None:
    assert pixel_hash(list(RGB.astype(kind))) == pixel_hash(list(RGB))
    high = RGB.astype(np.uint16) * 200
    assert pixel_hash(list(high.astype(np.float32))) == pixel_hash(list(high)) != pixel_hash(list(RGB))


def test_values_of_no_smaller_type_stay() -> None:
    values = GRAY.astype(np.float32)
    hashes = {pixel_hash(list(one)) for one in (values, values + 0.5, -values - 1, values + 70000)}
    assert len(hashes) == 4


def test_gray_stored_as_rgb_is_gray_and_colours_are_not() -> None:
    assert pixel_hash(list(np.repeat(GRAY, 3, axis=0))) == pixel_hash(list(GRAY))
    almost = np.repeat(GRAY, 3, axis=0)
    almost[2, -1, -1] ^= 1
    assert pixel_hash(list(almost)) != pixel_hash(list(GRAY))
    assert pixel_hash(list(RGB[::-1])) != pixel_hash(list(RGB))


def test_shape_is_part_of_the_hash() -> None:
    assert pixel_hash([GRAY[0].reshape(53, 37)]) != pixel_hash([GRAY[0]])


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
@pytest.mark.parametrize("ending", [".bmp", ".tif", ".nii.gz", ".mha"])
def test_lossless_formats_are_the_same_picture(tmp_path: Path, pixels: np.ndarray, ending: str) -> None:
    path = tmp_path / f"other name{ending}"
    write_image(path, pixels, None)
    assert pixel_hash(list(read_image(path).array)) == pixel_hash(list(pixels))
