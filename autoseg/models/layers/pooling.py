"""Adaptive average pooling that can repeat to the last bit on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.precision import full_precision


def adaptive_avg_pool2d(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size). PyTorch's backward pass has no deterministic form on CUDA; products of matrices have."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return pool_by_products(x, size)
    return F.adaptive_avg_pool2d(x, size)


def pool_by_products(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The same as products with a matrix for the rows and one for the columns."""
    with full_precision(x):
        rows, columns = (_means(old, new, x.device) for old, new in zip(x.shape[-2:], size, strict=True))
        return (rows @ x.float() @ columns.mT).to(x.dtype)


def _means(old: int, new: int, device: torch.device) -> Tensor:
    """(new, old): each row averages the pixels of one bin, as PyTorch divides them."""
    bins, pixels = torch.arange(new, device=device).unsqueeze(1), torch.arange(old, device=device)
    members = (pixels >= bins * old // new) & (pixels * new < (bins + 1) * old)
    return members / members.sum(dim=1, keepdim=True)


class AdaptiveAvgPool2d(nn.Module):
    """`adaptive_avg_pool2d` to `size` x `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, (self.size, self.size))
