"""No transform moves the image against its label: the shift between both, measured on a phantom, is below 0.05 pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from autoseg.data import augment, batchgenerators_chain
from autoseg.data.geometry import Geometry, warp_crop
from autoseg.preprocessing.transform import preprocess_image, preprocess_label
from autoseg.schema.plan import Augmentation, PreprocessingConfig
from tests.data.arrays import NO_AUGMENTATION

SIDE, DRAWS, LIMIT = 192, 24, 0.05
CHAINS = {"fast": augment.augment, "classic": batchgenerators_chain.augment}
# What only the fast chain has.
DOMAIN_SHIFT: dict[str, dict[str, object]] = {
    "uneven brightness": {"p_bias": 1.0},
    "sharpening": {"p_sharpen": 1.0},
    "jpeg": {"p_jpeg": 1.0},
}
TRANSFORMS: dict[str, dict[str, object]] = {
    "rotation": {"p_rotation": 1.0, "rotation": 30.0},
    "larger": {"p_scaling": 1.0, "scaling": (1.2, 1.4)},
    "smaller": {"p_scaling": 1.0, "scaling": (0.7, 0.9)},
    "elastic": {"p_elastic": 1.0},
    "mirrored": {"mirror": (0, 1)},
    "noise": {"p_noise": 1.0},
    "blur": {"p_blur": 1.0},
    "brightness": {"p_brightness": 1.0},
    "contrast": {"p_contrast": 1.0},
    "gamma": {"p_gamma": 1.0},
    "low resolution": {"p_low_resolution": 1.0},
    "low resolution, half": {"p_low_resolution": 1.0, "low_resolution": (0.5, 0.5)},
    "low resolution, two thirds": {"p_low_resolution": 1.0, "low_resolution": (0.667, 0.667)},
}


@cache
def phantom(seed: int, dtype: str = "uint8") -> tuple[np.ndarray, np.ndarray]:
    """Bright discs at uneven places, antialiased, and their label: (H, W, 1) and (H, W)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    smooth = np.zeros((SIDE, SIDE))
    for row in range(7):
        for column in range(7):
            centre = 15 + 27 * np.array([row, column]) + random.uniform(-3, 3, 2)
            distance = np.hypot(rows - centre[0], columns - centre[1])
            smooth = np.maximum(smooth, np.clip(random.uniform(6, 9) - distance + 0.5, 0, 1))
    label = (smooth > 0.5).astype(np.uint8)
    return (40 + smooth * 150).astype(dtype)[..., None], label


def shift(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(rows, columns) by which the image lies further down and right than its label, in pixels.

    Of both blurred: image = a + b label - b shift . gradient of the label, by least squares; exact for small shifts.
    """
    plain = cv2.GaussianBlur(image[..., 0].astype(np.float64), (0, 0), 2.0)
    marks = cv2.GaussianBlur(label.astype(np.float64), (0, 0), 2.0)
    terms = [term[12:-12, 12:-12].ravel() for term in (np.ones_like(marks), marks, *np.gradient(marks))]
    shifts = np.linalg.lstsq(np.stack(terms, 1), plain[12:-12, 12:-12].ravel(), rcond=None)[0]
    return -shifts[2:] / shifts[1]


def mean_shift(chain: str, settings: Augmentation, dtype: str = "uint8") -> np.ndarray:
    shifts = []
    for seed in range(DRAWS):
        image, label = phantom(seed, dtype)
        pixels, labels = CHAINS[chain](image, label, (8, 8), (176, 176), settings, np.random.default_rng(seed))
        shifts.append(shift(pixels, labels))
    return np.mean(shifts, axis=0)


def test_the_measure_finds_a_known_shift():
    for rows, columns in ((0.0, 0.0), (0.25, -0.5), (-0.5, 0.125)):
        matrix = np.array([[1, 0, columns], [0, 1, rows]])
        shifts = []
        for seed in range(DRAWS):
            image, label = phantom(seed)
            moved = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)[..., None]
            shifts.append(shift(moved, label))
        assert np.mean(shifts, axis=0) == pytest.approx([rows, columns], abs=0.02)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_no_transform_moves_the_image_against_its_label(chain, transform):
    settings = replace(NO_AUGMENTATION, **TRANSFORMS[transform])
    assert np.abs(mean_shift(chain, settings)).max() < LIMIT


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("transform", DOMAIN_SHIFT)
def test_changes_as_between_scanners_move_nothing(transform, dtype):
    assert np.abs(mean_shift("fast", replace(NO_AUGMENTATION, **DOMAIN_SHIFT[transform]), dtype)).max() < LIMIT


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("transform", ["low resolution", "rotation", "elastic"])
def test_the_same_for_other_types(transform, dtype):
    assert np.abs(mean_shift("fast", replace(NO_AUGMENTATION, **TRANSFORMS[transform]), dtype)).max() < LIMIT


@pytest.mark.parametrize("size", [(96, 96), (150, 130), (288, 288), (64, 64)])
def test_resizing_moves_neither(size):
    config = PreprocessingConfig(key="resize", geometry="resize", dtype="uint8", channels=1, size=size)
    shifts = []
    for seed in range(DRAWS):
        image, label = phantom(seed)
        resized = preprocess_image(np.moveaxis(image, 2, 0), config, None), preprocess_label(label, config, None)
        shifts.append(shift(*resized))
    assert np.abs(np.mean(shifts, axis=0)).max() < LIMIT


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 33.0])
# At zooms such as 1.3 labels of some window pixels lie exactly between two pixels; random zooms never do.
@pytest.mark.parametrize("zoom", [1.0, 0.83, 1.37, 2.0])
def test_one_resampling_moves_neither(angle, zoom):
    geometry = Geometry(angle=angle, zoom=zoom)
    shifts = [shift(*warp_crop(*phantom(seed), (8, 8), (176, 176), geometry)) for seed in range(DRAWS)]
    assert np.abs(np.mean(shifts, axis=0)).max() < LIMIT
