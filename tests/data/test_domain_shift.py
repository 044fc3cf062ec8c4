"""Changes as between scanners: what each does, on every stored type, and that equal generators give equal bits."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from autoseg.data.augment import intensity_transforms
from autoseg.data.domain_shift import bias_field, colour_jitter, compress, sharpen
from tests.data.arrays import NO_AUGMENTATION

SHIFT = replace(NO_AUGMENTATION, p_colour=1.0, p_bias=1.0, p_sharpen=1.0, p_jpeg=1.0)
TYPES = ("uint8", "uint16", "float32")


def picture(dtype: str = "uint8", channels: int = 3) -> np.ndarray:
    """Smooth blobs from 0 to 200, (64, 72, channels)."""
    noise = np.random.default_rng(0).normal(size=(64, 72, channels))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).reshape(64, 72, channels)
    return np.rint((smooth - smooth.min()) / np.ptp(smooth) * 200).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_every_type_and_number_of_channels_keeps_shape_and_type(dtype: str, channels: int) -> None:
    image = picture(dtype, channels)
    before = image.copy()
    result, again = (intensity_transforms(image, SHIFT, np.random.default_rng(4)) for _ in range(2))
    assert result.shape == image.shape and result.dtype == image.dtype
    assert np.array_equal(result, again) and np.array_equal(image, before)
    assert not np.array_equal(result, intensity_transforms(image, SHIFT, np.random.default_rng(5)))


def test_without_a_chance_nothing_is_drawn() -> None:
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    settings = replace(NO_AUGMENTATION, p_brightness=0.5)
    intensity_transforms(picture(), settings, first)
    intensity_transforms(picture(), replace(settings, hue=90.0, bias=1.0, jpeg=(10.0, 20.0)), second)
    assert first.random() == second.random()


@pytest.mark.parametrize("dtype", TYPES)
def test_colour_changes_hue_and_saturation_but_no_gray(dtype: str) -> None:
    gray = np.repeat(picture(dtype, 1), 3, axis=2)
    # The matrices of luminance have three digits, so gray is kept to a thousandth.
    assert np.abs(colour_jitter(gray, 60.0, 1.5, np.ones(3)).astype(float) - gray).max() <= 1
    plain, colourless = picture(dtype), colour_jitter(picture(dtype), 0.0, 0.0, np.ones(3)).astype(float)
    assert np.abs(colourless - (plain @ [0.299, 0.587, 0.114])[..., None]).max() <= 1.5
    red = np.zeros((8, 8, 3), dtype)
    red[..., 0] = 100
    turned = colour_jitter(red, 120.0, 1.0, np.ones(3))[4, 4]
    assert turned[0] < turned.max()
    if dtype == "uint8":
        assert np.abs(colour_jitter(plain, 0.0, 1.0, np.array([1.2, 1.0, 0.8])) - plain * [1.2, 1.0, 0.8]).max() <= 1


def test_colour_is_for_three_channels_only() -> None:
    settings = replace(NO_AUGMENTATION, p_colour=1.0)
    for channels in (1, 2, 4):
        image = picture(channels=channels)
        assert np.array_equal(intensity_transforms(image, settings, np.random.default_rng(0)), image)


@pytest.mark.parametrize("dtype", TYPES)
def test_uneven_brightness_is_smooth_and_within_its_strength(dtype: str) -> None:
    flat = np.full((64, 72, 2), 100, dtype)
    # Percentiles of a constant image give no range: a few dark pixels do.
    flat[::8, ::8] = 0
    result = bias_field(flat, 0.3, np.random.default_rng(0)).astype(float)[flat > 0].reshape(-1, 2)
    assert np.array_equal(result[:, 0], result[:, 1])
    assert 100 * np.exp(-0.4) < result.min() < 97 and 103 < result.max() < 100 * np.exp(0.4)
    rows = bias_field(np.full((64, 72, 1), 100, np.uint8), 0.3, np.random.default_rng(0)).astype(float)[..., 0]
    assert max(np.abs(np.diff(rows, axis=0)).max(), np.abs(np.diff(rows, axis=1)).max()) <= 3


@pytest.mark.parametrize("dtype", TYPES)
def test_sharpening_undoes_some_blur(dtype: str) -> None:
    image = picture(dtype)
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0)
    before, after = (np.abs(one.astype(float) - image).mean() for one in (blurred, sharpen(blurred, 0.8)))
    assert after < 0.6 * before


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_jpeg_is_worse_with_a_lower_quality_and_keeps_the_channels_apart(channels: int) -> None:
    image = picture(channels=channels)
    errors = [np.abs(compress(image, quality).astype(float) - image).mean() for quality in (10, 50, 100)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 2
    if channels == 3:
        # Red stays red: OpenCV's order of channels is another one.
        decoded = cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
        assert np.array_equal(compress(image, 50), decoded[..., ::-1])


def test_jpeg_of_deep_images_keeps_their_depth_and_values_beyond_the_percentiles() -> None:
    image = (picture("float32", 1) * 20.05 - 1000).astype(np.float32)
    image[1, 1] = 60000
    result = compress(image, 60)
    assert result[1, 1, 0] > 55000
    inner = np.abs(result - image)[8:, 8:]
    assert 0 < inner.mean() < 0.03 * 4000 and len(np.unique(result)) > 256
    # Flat parts have no error, so their values are the same to the last bit.
    flat = np.full((32, 32, 1), 1234.567, np.float32)
    assert np.array_equal(compress(flat, 60), flat)
