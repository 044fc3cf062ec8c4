from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.preprocessing import transform
from autoseg.preprocessing.label_maps import resize_label
from autoseg.preprocessing.transform import (
    image_window,
    preprocess_image,
    preprocess_label,
    preprocessed_size,
    resize_pixels,
)
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError


def resize_config(
    size: tuple[int, int] = (32, 48), channels: int = 3, dtype: str = "uint8", **more: object
) -> PreprocessingConfig:
    return PreprocessingConfig(key="whole", geometry="resize", dtype=dtype, channels=channels, size=size, **more)  # type: ignore[arg-type]


def patch_config(**more: object) -> PreprocessingConfig:
    return PreprocessingConfig(key="patch", geometry="patch", dtype="uint8", channels=1, **more)  # type: ignore[arg-type]


def colour(height: int, width: int, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (channels, height, width)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(64, 96), (20, 100), (11, 13), (32, 48)])
def test_channels_are_resized_independently(dtype: str, channels: int, shape: tuple[int, int]) -> None:
    image = colour(*shape, channels, dtype)
    out = preprocess_image(image, resize_config(channels=channels, dtype=dtype))
    assert out.shape == (32, 48, channels) and out.dtype == np.dtype(dtype) and out.flags.c_contiguous
    for k in range(channels):
        alone = preprocess_image(image[k : k + 1], resize_config(channels=1, dtype=dtype))[..., 0]
        np.testing.assert_allclose(out[..., k].astype(float), alone.astype(float), atol=0 if dtype != "float32" else 1e-3)


def test_shrinking_averages_areas() -> None:
    image = colour(64, 96)
    expected = image.reshape(3, 32, 2, 48, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(preprocess_image(image, resize_config()).astype(float) - expected).max() <= 0.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_shrinking_to_a_third_averages_nine_pixels(dtype: str) -> None:
    """At a half, bilinear interpolation gives the same means; at a third it would take every third pixel."""
    image = colour(96, 144, dtype=dtype)
    expected = image.reshape(3, 32, 3, 48, 3).mean(axis=(2, 4)).transpose(1, 2, 0)
    got = preprocess_image(image, resize_config(dtype=dtype)).astype(float)
    assert np.abs(got - expected).max() <= (0.5 if dtype != "float32" else 1e-3)


def test_one_axis_shrinks_while_the_other_grows() -> None:
    pixels = np.tile(np.array([0, 200] * 32, np.uint8)[:, None, None], (1, 10, 1))
    out = resize_pixels(pixels, (32, 40))
    assert out.shape == (32, 40, 1) and np.all(out == 100)


def test_patch_size_follows_scale_or_spacing() -> None:
    assert preprocessed_size((100, 61), patch_config(), None) == (100, 61)
    assert preprocessed_size((100, 61), patch_config(scale=0.5), None) == (50, 30)
    assert preprocessed_size((100, 60), patch_config(spacing=(0.5, 0.25)), (0.25, 0.5)) == (50, 120)
    with pytest.raises(AutosegError, match="mm per pixel"):
        preprocessed_size((100, 60), patch_config(spacing=(0.5, 0.5)), None)
    image = colour(31, 45, 1)
    np.testing.assert_array_equal(preprocess_image(image, patch_config())[..., 0], image[0])


def test_gray_and_colour_images_match_stored_channels() -> None:
    gray = colour(32, 48, 1)
    repeated = preprocess_image(gray, resize_config())
    assert all(np.array_equal(repeated[..., k], gray[0]) for k in range(3))
    merged = resize_config(channels=1, merge_gray=True)
    np.testing.assert_array_equal(preprocess_image(np.repeat(gray, 3, 0), merged), preprocess_image(gray, merged))
    red = np.stack([np.full((32, 48), 100, np.uint8), np.zeros((32, 48), np.uint8), np.zeros((32, 48), np.uint8)])
    assert np.all(preprocess_image(red, merged) == 30)
    with pytest.raises(AutosegError, match="2 channels, the plan was made for 3"):
        preprocess_image(colour(32, 48, 2), resize_config())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_luminance_in_bands_equals_luminance_at_once(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    image = colour(32, 48).astype(dtype)
    merged = resize_config(dtype=np.dtype(dtype).name, channels=1, merge_gray=True)
    at_once = preprocess_image(image, merged)
    monkeypatch.setattr(transform, "_BAND_PIXELS", 5 * 48)
    np.testing.assert_array_equal(preprocess_image(image, merged), at_once)


def test_values_outside_the_stored_type_raise() -> None:
    with pytest.raises(AutosegError, match="the training images were uint8"):
        preprocess_image(np.full((1, 32, 48), 300, np.uint16), resize_config(channels=1))
    with pytest.raises(AutosegError, match="uint16"):
        preprocess_image(np.full((1, 32, 48), -5.0, np.float32), resize_config(channels=1, dtype="uint16"))
    same = preprocess_image(np.full((1, 32, 48), 250, np.uint16), resize_config(channels=1))
    assert same.dtype == np.uint8 and np.all(same == 250)
    assert np.all(preprocess_image(np.full((1, 9, 9), 7, np.int16), resize_config(channels=1, dtype="uint16")) == 7)
    assert preprocess_image(np.full((1, 9, 9), -1000, np.int32), resize_config(channels=1, dtype="float32")).min() == -1000


def test_nan_becomes_the_smallest_value() -> None:
    image = np.ones((1, 64, 96), np.float32)
    image[0, :10], image[0, 20:30, 20:30] = -3.0, np.nan
    out = preprocess_image(image, resize_config(channels=1, dtype="float32"))
    assert np.isfinite(out).all() and out[12, 12, 0] == -3.0


def test_label_is_uint8_with_the_same_values() -> None:
    label = np.zeros((64, 96), np.int32)
    label[10:30, 20:60], label[40:60, 50:90] = 2, 5
    out = preprocess_label(label, resize_config())
    assert out.dtype == np.uint8 and set(np.unique(out)) == {0, 2, 5}
    np.testing.assert_array_equal(out[5:15, 10:30], 2)
    with pytest.raises(AutosegError, match="0..255"):
        preprocess_label(label + 300, resize_config())


def test_thin_line_stays_connected_when_halved() -> None:
    for offset in (0, 1):
        label = np.zeros((96, 96), np.uint8)
        for i in range(90):
            cv2.circle(label, (i + 3, 10 + offset + i // 2), 0, 1, -1)
            label[11 + offset + i // 2, i + 3] = 1
        small = resize_label(label, (48, 48))
        assert cv2.connectedComponents(small, connectivity=8)[0] == 2, "one line"
        assert abs(small.sum() * 4 / label.sum() - 1) < 0.3


@settings(max_examples=40, deadline=None)
@given(
    st.integers(8, 60),
    st.integers(8, 60),
    st.integers(8, 60),
    st.integers(8, 60),
    st.lists(st.sampled_from([0, 1, 2, 3, 255]), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_resized_label_map_has_no_new_values(
    height: int, width: int, new_height: int, new_width: int, values: list[int], seed: int
) -> None:
    label = np.random.default_rng(seed).choice(np.array(values, np.uint8), (height, width))
    out = resize_label(label, (new_height, new_width))
    assert out.shape == (new_height, new_width) and out.dtype == np.uint8
    assert set(np.unique(out)) <= set(np.unique(label))
    if 0 not in values:
        assert out.min() > 0


def test_class_areas_are_preserved() -> None:
    label = np.zeros((300, 200), np.uint8)
    cv2.circle(label, (90, 140), 60, 1, -1)
    cv2.circle(label, (90, 140), 30, 2, -1)
    out = resize_label(label, (96, 128))
    scale = 96 * 128 / (300 * 200)
    for value in (1, 2):
        assert abs((out == value).sum() / ((label == value).sum() * scale) - 1) < 0.02


@pytest.mark.parametrize(
    ("shape", "window"), [((30, 60), (slice(8, 24), slice(0, 32))), ((60, 30), (slice(0, 32), slice(8, 24)))]
)
def test_padded_images_keep_their_aspect_in_the_middle_of_zeros(shape, window) -> None:
    config = resize_config((32, 32), pad=True)
    assert image_window(shape, config) == window
    image, label = colour(*shape) + 20, np.ones(shape, np.uint8)
    placed, labels = preprocess_image(image, config), preprocess_label(label, config)
    inner = resize_config((window[0].stop - window[0].start, window[1].stop - window[1].start))
    assert np.array_equal(placed[window], preprocess_image(image, inner))
    assert placed.sum() == placed[window].sum() and placed.shape == (32, 32, 3) and placed.flags.c_contiguous
    assert labels[window].all() and labels.sum() == labels[window].size


def test_a_padded_square_is_only_resized() -> None:
    padded, plain = (preprocess_image(colour(64, 64), resize_config((32, 32), pad=pad)) for pad in (True, False))
    assert np.array_equal(padded, plain)


def test_around_a_padded_float_image_is_its_lowest_value() -> None:
    image = colour(20, 40, 1, "float32") - 1000
    placed = preprocess_image(image, resize_config((40, 40), channels=1, dtype="float32", pad=True))
    assert (placed[:10] == image.min()).all()


def test_padding_is_part_of_the_identity_of_arrays_and_older_ones_stay_valid() -> None:
    plain, padded = resize_config((32, 32)), resize_config((32, 32), pad=True)
    assert "pad" not in plain.hashed() and padded.hashed()["pad"] is True
