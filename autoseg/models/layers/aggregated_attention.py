"""Aggregated attention: each pixel attends to its 3x3 neighbours and to the pooled map, in one softmax.

Shi: TransNeXt: Robust Foveal Visual Perception for Vision Transformers. CVPR 2024.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.pooling import adaptive_avg_pool2d

Size = tuple[int, int]

_NEIGHBOURS = 9
_BIAS_WIDTH = 512
# Softplus of the initial value is 1 / 0.24.
_INITIAL_TEMPERATURE = math.log(math.expm1(1 / 0.24))


@lru_cache(maxsize=256)
def _distances(queries: int, keys: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Distances along one axis between the pixels and the cells into which they are pooled.

    A cell's position is the mean of its pixels' positions. Returns the sorted unique distances, and for each pair
    (query-major) the index of its distance.
    """
    cells = [(i * queries // keys, -(-(i + 1) * queries // keys) - 1) for i in range(keys)]
    doubled_offsets = [2 * query - first - last for query in range(queries) for first, last in cells]
    unique = sorted(set(doubled_offsets))
    index_of = {distance: i for i, distance in enumerate(unique)}
    return tuple(distance / 2 for distance in unique), tuple(index_of[distance] for distance in doubled_offsets)


class PositionBias(nn.Module):
    """Bias of the attention between a pixel and a pooled cell, as a function of their offset: (heads, H * W, Hk * Wk).

    A small network applied to the logarithm of the offset, in units of the grid of pretraining. resized_from: the map's
    size in training; the bias of that size is interpolated for other sizes, as published. None: the bias is computed for
    each size, which the paper calls extrapolation. Both are equal at the training size.
    """

    def __init__(self, heads: int, reduction: int, pretrained_side: int, resized_from: Size | None) -> None:
        super().__init__()
        self.reduction = reduction
        self.scale = 8.0 / (pretrained_side - 1)
        self.resized_from = resized_from
        self.widen = nn.Linear(2, _BIAS_WIDTH)
        self.narrow = nn.Linear(_BIAS_WIDTH, heads)

    def forward(self, size: Size) -> Tensor:
        keys = (size[0] // self.reduction, size[1] // self.reduction)
        if self.resized_from is None or self.resized_from == size:
            return self._computed(size, keys).flatten(3).flatten(1, 2)
        old = self.resized_from
        bias = self._computed(old, (old[0] // self.reduction, old[1] // self.reduction)).flatten(1, 2)
        bias = F.interpolate(bias, keys, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        bias = F.interpolate(bias.unflatten(2, old), size, mode="bilinear", align_corners=False)
        return bias.flatten(2).transpose(1, 2)

    def _computed(self, size: Size, keys: Size) -> Tensor:
        """(heads, H, W, Hk, Wk). The network is applied once to each unique offset; pairs look up their value."""
        device = self.widen.weight.device
        down, rows = self._axis(size[0], keys[0], device)
        across, columns = self._axis(size[1], keys[1], device)
        offsets = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1)
        values = self.narrow(F.relu(self.widen(offsets)))
        # Indexing the first axis is fastest: the copy and its gradient move whole rows.
        values = values.index_select(0, rows).transpose(0, 1).index_select(0, columns)
        return values.unflatten(1, (size[0], keys[0])).unflatten(0, (size[1], keys[1])).permute(4, 2, 0, 3, 1)  # type: ignore[no-any-return]

    def _axis(self, queries: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
        distances, index = _distances(queries, keys)
        offset = torch.tensor(distances, device=device) * self.scale
        return offset.sign() * torch.log2(offset.abs() + 1) / 3, torch.tensor(index, device=device)


class CosineAttention(nn.Module):
    """Base of both forms: unit queries and keys, a learned query added to all queries, and a learned temperature scaled by
    the logarithm of the number of keys. Maps are (B, heads, channels per head, pixels).
    """

    def __init__(self, channels: int, heads: int, bias: PositionBias) -> None:
        super().__init__()
        depth = channels // heads
        self.heads = heads
        self.bias = bias
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), _INITIAL_TEMPERATURE))
        self.common_query = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, 1, depth), std=0.02))
        self.project = nn.Linear(channels, channels)

    def split(self, tokens: Tensor, parts: int = 1) -> Tensor:
        """Tokens (B, N, parts * C) -> (B, parts * heads, channels per head, N)."""
        return tokens.transpose(1, 2).unflatten(1, (parts * self.heads, -1))  # type: ignore[no-any-return]

    def scale_query(self, query: Tensor, keys: Tensor) -> Tensor:
        """Unit queries, scaled for the product with unit keys. keys: number of keys of each query, (N) or (1)."""
        return (query + self.common_query.transpose(1, 2)) * F.softplus(self.temperature) * torch.log(keys)

    def join(self, attended: Tensor) -> Tensor:
        """(B, heads, channels per head, N) -> tokens (B, N, C)."""
        return self.project(attended.flatten(1, 2).transpose(1, 2))  # type: ignore[no-any-return]


class GlobalAttention(CosineAttention):
    """Every pixel attends to every pixel: tokens (B, H * W, C) -> same shape."""

    def __init__(self, channels: int, heads: int, bias: PositionBias) -> None:
        super().__init__(channels, heads, bias)
        self.query_key_value = nn.Linear(channels, 3 * channels)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        query, key, value = self.split(self.query_key_value(tokens), 3).chunk(3, dim=1)
        count = torch.tensor([float(size[0] * size[1])], device=tokens.device)
        query = self.scale_query(F.normalize(query, dim=2), count)
        weights = (query.transpose(2, 3) @ F.normalize(key, dim=2) + self.bias(size)).softmax(dim=-1)
        return self.join(value @ weights.transpose(2, 3))


class AggregatedAttention(CosineAttention):
    """Every pixel attends to its 3x3 neighbours and to the map average-pooled by `reduction`: (B, H * W, C) -> same shape.

    Neighbours get additional weights from the product of query and learned tokens. They encode the position within the
    window even if all keys are equal.
    """

    def __init__(self, channels: int, heads: int, bias: PositionBias) -> None:
        super().__init__(channels, heads, bias)
        depth = channels // heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.reduce_norm = nn.LayerNorm(channels)
        self.neighbour_bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, _NEIGHBOURS), std=0.0004))
        self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, depth, _NEIGHBOURS), std=0.02))
        self.token_bias = nn.Parameter(torch.zeros(heads, 1, _NEIGHBOURS))

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        query = F.normalize(self.split(self.query(tokens)), dim=2)
        key, value = self.split(self.key_value(tokens), 2).chunk(2, dim=1)
        pooled_key, pooled_value = self.split(self.key_value(self._pool(tokens, size)), 2).chunk(2, dim=1)
        in_map = torch.stack(_neighbours(torch.ones(size, device=tokens.device))).flatten(1)
        scaled = self.scale_query(query, in_map.sum(dim=0) + pooled_key.shape[-1])

        local_keys = _neighbours(F.normalize(key, dim=2).unflatten(3, size))
        scaled_map = scaled.unflatten(3, size)
        local = torch.stack([(scaled_map * shifted).sum(dim=2) for shifted in local_keys], dim=-1).flatten(2, 3)
        local = (local + self.neighbour_bias[:, None]).masked_fill(in_map.t() == 0, -math.inf)
        pooled = scaled.transpose(2, 3) @ F.normalize(pooled_key, dim=2) + self.bias(size)
        weights = torch.cat([local, pooled.to(local.dtype)], dim=-1).softmax(dim=-1)
        local, pooled = weights.split([_NEIGHBOURS, pooled.shape[-1]], dim=-1)

        local = local + query.transpose(2, 3) @ self.tokens + self.token_bias
        local_values = _neighbours(value.unflatten(3, size))
        weights_by_neighbour = local.transpose(2, 3).unflatten(3, size).unbind(dim=2)
        local_sum = torch.zeros_like(local_values[0])
        for weight, shifted in zip(weights_by_neighbour, local_values, strict=True):
            local_sum = local_sum + weight[:, :, None] * shifted
        return self.join(local_sum.flatten(3) + pooled_value @ pooled.transpose(2, 3))

    def _pool(self, tokens: Tensor, size: Size) -> Tensor:
        x = F.gelu(self.reduce(tokens.transpose(1, 2).unflatten(2, size)))
        x = adaptive_avg_pool2d(x, (size[0] // self.bias.reduction, size[1] // self.bias.reduction))
        return self.reduce_norm(x.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


def _neighbours(x: Tensor) -> list[Tensor]:
    """(..., H, W) -> nine shifted maps of the same size, one per 3x3 neighbour, row by row; zero outside.

    All are views of one padded map, so training stores only that map.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    return [padded[..., row : row + height, column : column + width] for row in range(3) for column in range(3)]
