"""Stored values to what the network sees: on whole batches, on the device, so that the store keeps the file's own bits."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.schema.plan import Normalisation

# A deviation below this share of the largest value is that of a constant image: dividing by it would blow up rounding.
_FLAT = 1e-6


def normalise(images: Tensor, normalisation: Normalisation, statistics: Tensor | None = None) -> Tensor:
    """(B, C, H, W) stored values of any real type -> float32: (clip(x, lower, upper) - mean) / std for each channel.

    torch can do little with uint16 (and old releases nothing): batches of 16-bit images travel as int32 or float32, which
    hold every value exactly; a uint16 tensor is accepted too.
    statistics: (B, 2, C), mean and deviation of the image each patch was cut from, for the scheme "image"; without it they
    are taken over the tensor itself, which is right where images are seen whole. See `image_statistics`.
    """
    values = _clipped(images, normalisation)
    if normalisation.scheme == "constant":
        mean = _per_channel(normalisation.mean, images)
        return (values - mean).mul_(1.0 / _per_channel(normalisation.std, images))
    known = image_statistics(images, normalisation) if statistics is None else statistics.to(values)
    mean, std = known[:, 0, :, None, None], known[:, 1, :, None, None]
    return (values - mean) / std


def image_statistics(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(B, C, H, W) -> (B, 2, C) float32: mean and deviation of each image's channels after clipping; 1 for a flat one."""
    values = _clipped(images, normalisation)
    std, mean = torch.std_mean(values, dim=(2, 3), correction=0)
    largest = values.abs().amax(dim=(2, 3))
    return torch.stack([mean, torch.where(std > _FLAT * largest, std, torch.ones_like(std))], dim=1)


def _clipped(images: Tensor, normalisation: Normalisation) -> Tensor:
    values = images.to(torch.float32)
    if not normalisation.lower:
        return values
    return torch.clamp(values, _per_channel(normalisation.lower, images), _per_channel(normalisation.upper, images))


def _per_channel(numbers: tuple[float, ...], images: Tensor) -> Tensor:
    assert len(numbers) == images.shape[1], f"{len(numbers)} numbers for {images.shape[1]} channels"
    return torch.tensor(numbers, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
