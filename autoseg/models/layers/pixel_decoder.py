"""Pixel decoder with multi-scale deformable attention: each pixel of three scales attends to a few points of all three.

Zhu et al.: Deformable DETR: Deformable Transformers for End-to-End Object Detection. ICLR 2021; as the pixel decoder of
Cheng et al.: Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.precision import full_precision
from autoseg.models.layers.sampling import weighted_samples

Size = tuple[int, int]

_HEADS = 8
_LEVELS = 3
_POINTS = 4
_LAYERS = 6
_HIDDEN = 1024
_NORM_GROUPS = 32
_TEMPERATURE = 10000.0


def sine_position_encoding(size: Size, channels: int, device: torch.device) -> Tensor:
    """Sine position encoding: (H * W, channels); the first half encodes y, the second x."""
    index = torch.arange(channels // 4, device=device, dtype=torch.float32)
    wavelength = _TEMPERATURE ** (4 * index / channels)
    axes = []
    for side in size:
        angle = torch.arange(1, side + 1, device=device, dtype=torch.float32) / (side + 1e-6) * (2 * math.pi)
        angle = angle[:, None] / wavelength
        axes.append(torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1))
    vertical = axes[0][:, None].expand(-1, size[1], -1)
    horizontal = axes[1][None].expand(size[0], -1, -1)
    return torch.cat((vertical, horizontal), dim=2).flatten(0, 1)


class DeformableAttention(nn.Module):
    """Tokens of several maps (B, N, C), N = sum of H * W; each attends to 4 points per map and head: (B, N, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Linear(channels, _HEADS * _LEVELS * _POINTS * 2)
        self.mix = nn.Linear(channels, _HEADS * _LEVELS * _POINTS)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        for layer in (self.value, self.project):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.offset, self.mix):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Initially each head has its own direction, with points at distances of one to four pixels.
        angle = torch.arange(_HEADS, dtype=torch.float32) * (2 * math.pi / _HEADS)
        direction = torch.stack((angle.cos(), angle.sin()), dim=1)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        distance = torch.arange(1, _POINTS + 1, dtype=torch.float32)
        bias = (direction[:, None, None] * distance[:, None]).expand(-1, _LEVELS, -1, -1)
        self.offset.bias = nn.Parameter(bias.flatten().clone())

    def forward(self, query: Tensor, tokens: Tensor, sizes: Sequence[Size], centres: Tensor) -> Tensor:
        """centres (N, 2): x and y of each token; the image's edges are at 0 and 1."""
        offsets = self.offset(query).unflatten(2, (_HEADS, _LEVELS, _POINTS, 2)).permute(3, 0, 2, 4, 1, 5)
        weights = self.mix(query).unflatten(2, (_HEADS, -1)).softmax(dim=3)
        weights = weights.unflatten(3, (_LEVELS, _POINTS)).permute(3, 0, 2, 4, 1)
        values = self.value(tokens).split([height * width for height, width in sizes], dim=1)
        attended: Tensor | None = None
        for level, (height, width) in enumerate(sizes):
            scale = torch.tensor((width, height), device=query.device, dtype=torch.float32)
            positions = (centres + offsets[level].float() / scale).flatten(0, 1)
            maps = values[level].transpose(1, 2).unflatten(1, (_HEADS, -1)).unflatten(3, (height, width))
            sampled = weighted_samples(maps.flatten(0, 1), positions, weights[level].flatten(0, 1))
            attended = sampled if attended is None else attended + sampled
        assert attended is not None
        return self.project(attended.unflatten(0, (-1, _HEADS)).flatten(1, 2).transpose(1, 2))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Deformable attention and a feed-forward, each with residual and post-norm: (B, N, C) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, _HIDDEN)
        self.narrow = nn.Linear(_HIDDEN, channels)
        self.feed_norm = nn.LayerNorm(channels)
        for layer in (self.widen, self.narrow):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Tensor, positions: Tensor, sizes: Sequence[Size], centres: Tensor) -> Tensor:
        tokens = self.attention_norm(tokens + self.attention(tokens + positions, tokens, sizes, centres))
        return self.feed_norm(tokens + self.narrow(F.relu(self.widen(tokens))))  # type: ignore[no-any-return]


class ConvGroupNorm(nn.Module):
    """Convolution and group norm: (B, C, H, W) -> (B, channels, H, W)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=bias)
        self.norm = nn.GroupNorm(_NORM_GROUPS, channels)
        _init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class PixelDecoder(nn.Module):
    """Maps of strides 4, 8, 16, 32 -> pixel features (B, C, H/4, W/4) and maps of strides 32, 16, 8 (B, C, h, w).

    Runs in float32, as published.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.project = nn.ModuleList(ConvGroupNorm(width, channels, 1, bias=True) for width in in_channels[:0:-1])
        for level in self.project:
            nn.init.xavier_uniform_(level.conv.weight)  # type: ignore[union-attr, arg-type]
        self.level_places = nn.Parameter(nn.init.normal_(torch.empty(_LEVELS, channels)))
        self.layers = nn.ModuleList(EncoderLayer(channels) for _ in range(_LAYERS))
        self.lateral = ConvGroupNorm(in_channels[0], channels, 1, bias=False)
        self.smooth = ConvGroupNorm(channels, channels, 3, bias=False)
        self.pixels = nn.Conv2d(channels, channels, 1)
        _init_conv(self.pixels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        with full_precision(maps[0]):
            return self._decode(maps)

    def _decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        finest, *coarser = (x.float() for x in maps)
        levels = [project(x) for project, x in zip(self.project, coarser[::-1], strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in levels]
        device, channels = finest.device, levels[0].shape[1]
        positions = torch.cat(
            [
                sine_position_encoding(size, channels, device) + level_embedding
                for size, level_embedding in zip(sizes, self.level_places, strict=True)
            ]
        )
        centres = torch.cat([_centres(size, device) for size in sizes])
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, positions, sizes, centres)
        parts = tokens.split([height * width for height, width in sizes], dim=1)
        levels = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
        coarse = F.interpolate(levels[-1], finest.shape[-2:], mode="bilinear", align_corners=False)
        joined = F.relu(self.smooth(self.lateral(finest) + coarse))
        return self.pixels(joined), levels


def _centres(size: Size, device: torch.device) -> Tensor:
    """(H * W, 2): x and y of pixel centres; the map's edges are at 0 and 1."""
    y, x = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side for side in size)
    vertical, horizontal = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((horizontal, vertical), dim=2).flatten(0, 1)


def _init_conv(conv: nn.Conv2d) -> None:
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
