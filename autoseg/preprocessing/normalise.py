"""Normalisation of batches on the training device. The stored arrays keep the values of the files."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.schema.plan import Normalisation

# A channel is constant if its deviation is below this fraction of its largest value: dividing would amplify rounding errors.
_CONSTANT = 1e-6


def normalise(images: Tensor, normalisation: Normalisation, statistics: Tensor | None = None) -> Tensor:
    """(B, C, H, W) stored values of any real type -> float32: (clip(x, lower, upper) - mean) / std for each channel.

    16-bit batches are int32 or float32, which hold every value exactly, because torch supports few uint16 operations. uint16
    is accepted too. statistics: (B, 2, C), mean and deviation of the image that each patch comes from, for the scheme
    "image". Default: computed from the tensor itself, which is right for complete images. See `image_statistics`.
    """
    values = _clip(images, normalisation)
    if normalisation.scheme == "constant":
        mean = _per_channel(normalisation.mean, images)
        return (values - mean).mul_(1.0 / _per_channel(normalisation.std, images))
    statistics = image_statistics(images, normalisation) if statistics is None else statistics.to(values)
    mean, std = statistics[:, 0, :, None, None], statistics[:, 1, :, None, None]
    return (values - mean) / std


def image_statistics(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(B, C, H, W) -> (B, 2, C) float32: mean and deviation of each channel after clipping; 1 for a constant one."""
    values = _clip(images, normalisation)
    std, mean = torch.std_mean(values, dim=(2, 3), correction=0)
    largest = values.abs().amax(dim=(2, 3))
    return torch.stack([mean, torch.where(std > _CONSTANT * largest, std, torch.ones_like(std))], dim=1)


def _clip(images: Tensor, normalisation: Normalisation) -> Tensor:
    values = images.to(torch.float32)
    if not normalisation.lower:
        return values
    return torch.clamp(values, _per_channel(normalisation.lower, images), _per_channel(normalisation.upper, images))


def _per_channel(numbers: tuple[float, ...], images: Tensor) -> Tensor:
    assert len(numbers) == images.shape[1], f"{len(numbers)} numbers for {images.shape[1]} channels"
    return torch.tensor(numbers, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
