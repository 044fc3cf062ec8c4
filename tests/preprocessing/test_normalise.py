from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.preprocessing.normalise import image_statistics, normalise
from autoseg.schema.plan import Normalisation

IMAGENET = Normalisation(scheme="constant", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
EACH = Normalisation(scheme="image")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float32])
def test_constant_scheme_per_channel(dtype: torch.dtype) -> None:
    numbers = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7))
    out = normalise(torch.from_numpy(numbers).to(dtype), IMAGENET)
    expected = (numbers - np.reshape(IMAGENET.mean, (1, 3, 1, 1))) / np.reshape(IMAGENET.std, (1, 3, 1, 1))
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_values_are_clipped_before_scaling() -> None:
    images = torch.tensor([[[[-2000.0, 0.0, 5000.0]]]])
    out = normalise(images, Normalisation(scheme="constant", mean=(100.0,), std=(50.0,), lower=(-100.0,), upper=(200.0,)))
    np.testing.assert_allclose(out.flatten().numpy(), [-4.0, -2.0, 2.0])


def test_image_scheme_normalises_each_image() -> None:
    dark, bright = torch.rand(1, 2, 8, 8) * 10, torch.rand(1, 2, 8, 8) * 3000 + 500
    out = normalise(torch.cat([dark, bright]), EACH)
    np.testing.assert_allclose(out.mean(dim=(2, 3)).numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(dim=(2, 3), correction=0).numpy(), 1, atol=1e-4)
    torch.testing.assert_close(out[:1], normalise(dark, EACH))


@pytest.mark.parametrize("value", [0, 255])
def test_constant_image_becomes_zero(value: int) -> None:
    out = normalise(torch.full((1, 1, 16, 16), value, dtype=torch.uint8), EACH)
    assert torch.all(out.abs() < 1e-3)


def test_patch_is_normalised_by_statistics_of_its_image() -> None:
    image = torch.rand(1, 3, 32, 32) * 200
    statistics = image_statistics(image, EACH)
    assert statistics.shape == (1, 2, 3)
    patch = image[..., 4:12, 8:20]
    torch.testing.assert_close(normalise(patch, EACH, statistics), normalise(image, EACH)[..., 4:12, 8:20])
    assert not torch.allclose(normalise(patch, EACH), normalise(patch, EACH, statistics))


def test_input_is_not_modified() -> None:
    images = torch.rand(1, 3, 4, 4)
    before = images.clone()
    normalise(images, IMAGENET)
    torch.testing.assert_close(images, before)
