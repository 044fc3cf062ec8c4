from __future__ import annotations

import random as python_random
from dataclasses import replace

import numpy as np
import pytest

from autoseg.data import augment, batchgenerators_chain
from autoseg.schema.plan import Augmentation
from tests.data.arrays import NO_AUGMENTATION

ROWS, COLUMNS = np.mgrid[:120, :120]
LABEL = (np.hypot(ROWS - 70, COLUMNS - 50) < 20).astype(np.uint8)
IMAGE = np.repeat(40 + 150 * LABEL[..., None], 3, axis=2).astype(np.uint8)
ALL = Augmentation(
    p_rotation=1, p_scaling=1, p_elastic=1, p_noise=1, p_blur=1, p_brightness=1, p_contrast=1, p_low_resolution=1, p_gamma=1
)


def test_with_all_probabilities_at_zero_it_is_the_stored_window():
    pixels, labels = batchgenerators_chain.augment(IMAGE, LABEL, (10, 20), (64, 48), NO_AUGMENTATION, np.random.default_rng(0))
    assert pixels.dtype == np.float32
    assert np.abs(pixels - IMAGE[10:74, 20:68]).max() < 1e-3
    assert np.array_equal(labels, LABEL[10:74, 20:68])


def test_equal_generators_give_equal_results_and_restore_the_global_ones():
    python_random.seed(1)
    np.random.seed(1)
    expected = python_random.random(), np.random.random()
    python_random.seed(1)
    np.random.seed(1)
    results = [
        batchgenerators_chain.augment(IMAGE, LABEL, (8, 8), (64, 64), ALL, np.random.default_rng(seed)) for seed in (0, 0, 1)
    ]
    assert (python_random.random(), np.random.random()) == expected
    assert np.array_equal(results[0][0], results[1][0]) and np.array_equal(results[0][1], results[1][1])
    assert not np.array_equal(results[0][0], results[2][0])


def test_image_and_label_move_together():
    settings = replace(NO_AUGMENTATION, p_rotation=1.0, p_scaling=1.0, p_elastic=1.0, mirror=(0, 1))
    pixels, labels = batchgenerators_chain.augment(IMAGE, LABEL, (10, 10), (96, 96), settings, np.random.default_rng(2))
    assert np.mean((pixels[..., 1] > 115) != labels) < 0.01
    assert not np.array_equal(labels, LABEL[10:106, 10:106])


@pytest.mark.parametrize("chain", [augment.augment, batchgenerators_chain.augment])
def test_both_chains_zoom_in_the_same_direction(chain):
    """Factors above 1 enlarge objects in both."""
    settings = replace(NO_AUGMENTATION, p_scaling=1.0, scaling=(1.0, 1.3))
    label_maps = [chain(IMAGE, LABEL, (10, 10), (96, 96), settings, np.random.default_rng(seed))[1] for seed in range(12)]
    areas = [labels.sum() / LABEL.sum() for labels in label_maps]
    assert min(areas) > 0.97 and 1.3 < max(areas) < 1.3**2 * 1.03


@pytest.mark.parametrize("chain", [augment.augment, batchgenerators_chain.augment])
@pytest.mark.parametrize(
    "settings",
    [
        {"p_brightness": 1.0, "brightness": (1.2, 1.2)},
        {"p_contrast": 1.0, "contrast": (1.2, 1.2)},
    ],
)
def test_both_chains_use_the_same_factors(chain, settings):
    smooth = np.clip(60 + ROWS + 0.3 * COLUMNS, 0, 255).astype(np.uint8)[..., None]
    pixels, _ = chain(smooth, LABEL, (0, 0), (120, 120), replace(NO_AUGMENTATION, **settings), np.random.default_rng(0))
    mean = smooth.mean()
    expected = smooth * 1.2 if "p_brightness" in settings else (smooth - mean) * 1.2 + mean
    # batchgenerators clips contrast to the image's range.
    in_range = (expected > smooth.min()) & (expected < min(255, smooth.max()))
    assert np.abs(pixels - expected)[in_range].max() < 2


def test_a_window_may_reach_beyond_the_image():
    pixels, labels = batchgenerators_chain.augment(IMAGE, LABEL, (-20, 90), (64, 64), ALL, np.random.default_rng(0))
    assert pixels.shape == (64, 64, 3) and labels.shape == (64, 64) and np.isfinite(pixels).all()
