from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.data.augment import augment, intensity_transforms
from autoseg.schema.plan import Augmentation
from tests.data.arrays import NO_AUGMENTATION

IMAGE = np.random.default_rng(0).integers(40, 160, (64, 72, 3), dtype=np.uint8)
LABEL = (IMAGE[..., 0] > 100).astype(np.uint8)
ALL = Augmentation(
    p_rotation=1, p_scaling=1, p_elastic=1, p_noise=1, p_blur=1, p_brightness=1, p_contrast=1, p_low_resolution=1, p_gamma=1
)


def changed(image: np.ndarray, **settings: object) -> np.ndarray:
    return intensity_transforms(image, replace(NO_AUGMENTATION, **settings), np.random.default_rng(3))


def test_with_all_probabilities_at_zero_nothing_changes():
    pixels, labels = augment(IMAGE, LABEL, (0, 0), (64, 72), NO_AUGMENTATION, np.random.default_rng(0))
    assert np.array_equal(pixels, IMAGE) and np.array_equal(labels, LABEL)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_every_type_and_number_of_channels_keeps_shape_and_type(dtype, channels):
    image = np.random.default_rng(0).integers(0, 200, (64, 72, channels)).astype(dtype)
    pixels, labels = augment(image, LABEL, (8, 8), (48, 40), ALL, np.random.default_rng(0))
    assert pixels.shape == (48, 40, channels) and pixels.dtype == image.dtype
    assert labels.shape == (48, 40) and labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1}
    again = augment(image, LABEL, (8, 8), (48, 40), ALL, np.random.default_rng(0))
    assert np.array_equal(pixels, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(pixels, augment(image, LABEL, (8, 8), (48, 40), ALL, np.random.default_rng(1))[0])


def test_brightness_multiplies():
    brighter = changed(IMAGE, p_brightness=1.0, brightness=(1.25, 1.25))
    assert np.abs(brighter - IMAGE * 1.25).max() <= 0.51


def test_contrast_scales_values_around_the_mean():
    result = changed(IMAGE, p_contrast=1.0, contrast=(1.25, 1.25)).astype(float)
    assert result.mean() == pytest.approx(IMAGE.mean(), abs=1.5)
    assert result.std() == pytest.approx(1.25 * IMAGE.std(), rel=0.01)


def test_gamma_keeps_black_and_white():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    result = changed(image, p_gamma=1.0, gamma=(1.5, 1.5))
    assert result.min() == 0 and result.max() == 255
    assert np.abs(result - 255 * (image / 255) ** 1.5).max() <= 0.51


def test_one_table_equals_the_separate_steps():
    """The only difference to separate brightness, contrast and gamma: one rounding instead of three."""
    result = changed(
        IMAGE, p_brightness=1.0, brightness=(0.8, 0.8), p_contrast=1.0, contrast=(1.2, 1.2), p_gamma=1.0, gamma=(0.7, 0.7)
    )
    values = IMAGE / 255 * 0.8
    mean = IMAGE[::4, ::4].mean() / 255 * 0.8
    expected = 255 * np.maximum((values - mean) * 1.2 + mean, 0) ** 0.7
    assert np.abs(result - expected.clip(0, 255)).max() <= 0.51


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_factors_have_the_same_effect_for_other_types(dtype):
    image = (np.arange(256).repeat(64 * 4).reshape(256, 256, 1)).astype(dtype)
    result = changed(image, p_gamma=1.0, gamma=(1.4, 1.4)).astype(float)
    assert np.abs(result - 255 * (image / 255.0) ** 1.4).max() < 3


def test_colours_change_together_and_other_channels_separately():
    gray = np.repeat(IMAGE[..., :1], 3, axis=2)
    result = changed(gray, p_brightness=1.0)
    assert np.array_equal(result[..., 0], result[..., 2])
    four = changed(np.repeat(IMAGE[..., :1], 4, axis=2), p_brightness=1.0)
    assert not np.array_equal(four[..., 0], four[..., 1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_noise_has_the_requested_deviation_and_no_pattern(dtype):
    # The range of values is 100, except for uint8, whose range is always 255.
    image = np.linspace(0, 100, 200 * 200).reshape(200, 200, 1).astype(dtype) + np.array(100, dtype)
    settings = replace(NO_AUGMENTATION, p_noise=1.0, noise=0.1)
    deviations = []
    for seed in range(40):
        noise = intensity_transforms(image, settings, np.random.default_rng(seed)).astype(float) - image
        deviations.append(noise.std())
        assert abs(noise.mean()) < 0.5
    limit = 25.5 if dtype == "uint8" else 10
    assert max(deviations) < limit * 1.05
    assert np.mean(deviations) == pytest.approx(limit / 2, rel=0.3)
    noise = intensity_transforms(image, settings, np.random.default_rng(1)).astype(float)[..., 0] - image[..., 0]
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.03


def test_blur_and_low_resolution_remove_detail():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    detail = np.abs(np.diff(noise.astype(float), axis=1)).mean()
    for settings in ({"p_blur": 1.0, "blur": (1.0, 1.0)}, {"p_low_resolution": 1.0, "low_resolution": (0.5, 0.5)}):
        assert np.abs(np.diff(changed(noise, **settings).astype(float), axis=1)).mean() < 0.75 * detail


def test_a_constant_image_stays_finite():
    flat = np.full((32, 32, 1), 7.0, np.float32)
    pixels, _ = augment(flat, np.zeros((32, 32), np.uint8), (0, 0), (32, 32), ALL, np.random.default_rng(0))
    assert np.isfinite(pixels).all()
