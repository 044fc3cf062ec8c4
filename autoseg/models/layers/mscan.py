"""MSCAN, the encoder of SegNeXt: convolutional attention with strip convolutions of several lengths.

Guo et al.: SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation. NeurIPS 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from autoseg.models.layers.initialisation import init_weights
from autoseg.models.published_weights import PublishedWeights, direct

# Channels and blocks of the four stages (strides 4, 8, 16, 32), and the drop path rate of the last block.
_SMALL, _LARGE = (32, 64, 160, 256), (64, 128, 320, 512)
SIZES = {
    "t": (_SMALL, (3, 3, 5, 2), 0.1),
    "s": (_LARGE, (2, 2, 4, 2), 0.1),
    "b": (_LARGE, (3, 3, 12, 3), 0.1),
    "l": (_LARGE, (3, 5, 27, 3), 0.3),
}
_MLP_RATIOS = (8, 8, 4, 4)
_STRIPS = (7, 11, 21)
_LAYER_SCALE = 1e-2

_ENCODER: dict[str, Any] = {"trained_on": "ImageNet-1k classification (encoder)", "licence": "Apache-2.0"}
_MMSEG = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segnext"
# Date and first digits of the hash, and megabytes.
_FILES = {
    "t": ("20230227-119e8c9f", 17),
    "s": ("20230227-f33ccdf2", 56),
    "b": ("20230227-3ab7d230", 107),
    "l": ("20230227-cef260d4", 180),
}
# The files of mmsegmentation have the names of the authors' tensors.
WEIGHTS = tuple(
    one
    for size, (mark, megabytes) in _FILES.items()
    for one in (
        direct(f"{_MMSEG}/mscan_{size}_{mark}.pth", variant=size, megabytes=megabytes, **_ENCODER),
        PublishedWeights(file=f"mscan_{size}.pth", variant=size, megabytes=megabytes, **_ENCODER),
    )
)

# For `drop_matching`.
CLASSIFIER = (r"head\.(weight|bias)", "belongs to the ImageNet classifier")


def official_names(ours: str) -> tuple[tuple[str, str], ...]:
    """Rows for `rename_keys`: official names, with or without `backbone.`, to those of the MSCAN named `ours`."""
    rows = [(r"(?:backbone\.)?patch_embed1\.proj\.(.+)", rf"{ours}.stages.0.embed.\1")]
    for i in range(4):
        stage = f"{ours}.stages.{i}"
        block, block_ours = rf"(?:backbone\.)?block{i + 1}\.(\d+)\.", rf"{stage}.blocks.\1."
        gate = block + r"attn\.spatial_gating_unit\."
        rows += [
            (rf"(?:backbone\.)?patch_embed{i + 1}\.proj\.(.+)", rf"{stage}.embed.0.\1"),
            (rf"(?:backbone\.)?patch_embed{i + 1}\.norm\.(.+)", rf"{stage}.embed.1.\1"),
            (rf"(?:backbone\.)?norm{i + 1}\.(.+)", rf"{stage}.norm.\1"),
            (block + r"norm1\.(.+)", block_ours + r"attention_norm.\2"),
            (block + r"attn\.proj_1\.(.+)", block_ours + r"attention.enter.\2"),
            (gate + r"conv0\.(.+)", block_ours + r"attention.near.\2"),
            (gate + r"conv(\d)_1\.(.+)", block_ours + r"attention.strips.\2.0.\3"),
            (gate + r"conv(\d)_2\.(.+)", block_ours + r"attention.strips.\2.1.\3"),
            (gate + r"conv3\.(.+)", block_ours + r"attention.mix.\2"),
            (block + r"attn\.proj_2\.(.+)", block_ours + r"attention.leave.\2"),
            (block + r"layer_scale_1", block_ours + "attention_scale"),
            (block + r"norm2\.(.+)", block_ours + r"feed_norm.\2"),
            (block + r"mlp\.fc1\.(.+)", block_ours + r"feed.0.\2"),
            (block + r"mlp\.dwconv\.dwconv\.(.+)", block_ours + r"feed.1.\2"),
            (block + r"mlp\.fc2\.(.+)", block_ours + r"feed.3.\2"),
            (block + r"layer_scale_2", block_ours + "feed_scale"),
        ]
    return tuple(rows)


def _depthwise(channels: int, height: int, width: int) -> nn.Conv2d:
    """Depth-wise convolution with padding that preserves the map's size."""
    return nn.Conv2d(channels, channels, (height, width), padding=(height // 2, width // 2), groups=channels)


class StripAttention(nn.Module):
    """Multi-scale convolutional attention: the map times weights from a 5x5 and from pairs of strip convolutions.

    (B, C, H, W) -> same shape. Its input is added to the result.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.activation = nn.GELU()
        self.near = _depthwise(channels, 5, 5)
        self.strips = nn.ModuleList(
            nn.Sequential(_depthwise(channels, 1, length), _depthwise(channels, length, 1)) for length in _STRIPS
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        value = self.activation(self.enter(x))
        context = local = self.near(value)
        for strip in self.strips:
            context = context + strip(local)
        attended: Tensor = self.leave(self.mix(context) * value)
        return attended + x


class Block(nn.Module):
    """Strip attention and a feed-forward with a depth-wise 3x3, each with pre-norm, layer scale and residual."""

    def __init__(self, channels: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        hidden = mlp_ratio * channels
        self.attention_norm = nn.BatchNorm2d(channels)
        self.attention = StripAttention(channels)
        self.attention_scale = nn.Parameter(torch.full((channels,), _LAYER_SCALE))
        self.feed_norm = nn.BatchNorm2d(channels)
        self.feed = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), _depthwise(hidden, 3, 3), nn.GELU(), nn.Conv2d(hidden, channels, 1)
        )
        self.feed_scale = nn.Parameter(torch.full((channels,), _LAYER_SCALE))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(self.attention_norm(x)) * self.attention_scale[:, None, None]
        x = x + self.drop_path(attended)
        transformed = self.feed(self.feed_norm(x)) * self.feed_scale[:, None, None]
        return x + self.drop_path(transformed)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Strided convolution (two in the first stage), blocks, layer norm: (B, C, H, W) -> (B, C', H/s, W/s)."""

    def __init__(self, in_channels: int, channels: int, first: bool, mlp_ratio: int, drop_paths: list[float]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if first:
            layers = [nn.Conv2d(in_channels, channels // 2, 3, 2, 1), nn.BatchNorm2d(channels // 2), nn.GELU()]
            in_channels = channels // 2
        self.embed = nn.Sequential(*layers, nn.Conv2d(in_channels, channels, 3, 2, 1), nn.BatchNorm2d(channels))
        self.blocks = nn.Sequential(*(Block(channels, mlp_ratio, rate) for rate in drop_paths))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x))
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


class MSCAN(nn.Module):
    """Image (B, C, H, W) -> four maps of strides 4, 8, 16, 32 with `widths` channels. size: one of `SIZES`."""

    def __init__(self, size: str, in_channels: int = 3) -> None:
        super().__init__()
        self.widths, depths, drop_path = SIZES[size]
        total = sum(depths)
        rates = [drop_path * i / (total - 1) for i in range(total)]
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(self.widths, depths, strict=True)):
            previous = self.widths[i - 1] if i else in_channels
            self.stages.append(Stage(previous, width, i == 0, _MLP_RATIOS[i], rates[:depth]))
            del rates[:depth]
        self.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
