"""UPerNet's decoder: pyramid pooling of the deepest map, a feature pyramid of all; an auxiliary head for training.

Xiao et al.: Unified Perceptual Parsing for Scene Understanding. ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.pooling import AdaptiveAvgPool2d

AUXILIARY_WEIGHT = 0.4


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU: (B, in, H, W) -> (B, out, H, W), or smaller by the stride."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """`x` (B, C, h, w), resized bilinearly to the height and width of `other`."""
    size = other.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """1x1 convolution to class logits; initial weights near zero, as published."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class PyramidPooling(nn.Module):
    """(B, C, h, w) -> (B, channels, h, w): the map and its averages over grids of several sizes, merged by a 3x3."""

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(AdaptiveAvgPool2d(scale), ConvNormReLU(in_channels, channels, 1)) for scale in scales
        )
        self.merge = ConvNormReLU(in_channels + len(scales) * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([x, *(resize_like(branch(x), x) for branch in self.branches)], dim=1))  # type: ignore[no-any-return]


class UPerDecoder(nn.Module):
    """Maps of increasing stride -> the fused pyramid (B, channels, h, w) at the first map's size.

    in_channels: of each map, the finest first. channels: width of the whole decoder. fuse_kernel: of the convolution
    that fuses the levels at the finest size (3 as published; the most expensive layer).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        fuse_kernel: int = 3,
    ) -> None:
        super().__init__()
        finer, levels = in_channels[:-1], len(in_channels)
        self.pooling = PyramidPooling(in_channels[-1], channels, pool_scales)
        self.laterals = nn.ModuleList(ConvNormReLU(width, channels, 1) for width in finer)
        self.smoothers = nn.ModuleList(ConvNormReLU(channels, channels, 3) for _ in finer)
        self.fuse = ConvNormReLU(levels * channels, channels, fuse_kernel)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        deepest = self.pooling(features[-1])
        levels = [lateral(x) for lateral, x in zip(self.laterals, features, strict=False)] + [deepest]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize_like(levels[i], levels[i - 1])
        smooth = [smoother(x) for smoother, x in zip(self.smoothers, levels, strict=False)] + [deepest]
        return self.fuse(torch.cat([resize_like(x, smooth[0]) for x in smooth], dim=1))  # type: ignore[no-any-return]


class UPerHead(UPerDecoder):
    """UPerDecoder, dropout, classifier: maps of increasing stride -> logits (B, K, h, w) at the first map's size."""

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, channels: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__(in_channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = classifier(channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.classify(self.dropout(super().forward(features)))  # type: ignore[no-any-return]


class AuxiliaryHead(nn.Module):
    """Logits (B, K, h, w) from one map of the encoder, used for the training loss only."""

    def __init__(self, in_channels: int, num_classes: int, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.reduce = ConvNormReLU(in_channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = classifier(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.dropout(self.reduce(x)))  # type: ignore[no-any-return]


def official_names(main: str = "decoder", auxiliary: str = "auxiliary") -> tuple[tuple[str, str], ...]:
    """Rows for `rename_keys`: mmsegmentation's heads to ours, named `main` and `auxiliary`."""
    units = (
        (r"decode_head\.psp_modules\.(\d+)\.1", rf"{main}.pooling.branches.\1.1"),
        (r"decode_head\.(bottleneck)", rf"{main}.pooling.merge"),
        (r"decode_head\.lateral_convs\.(\d+)", rf"{main}.laterals.\1"),
        (r"decode_head\.fpn_convs\.(\d+)", rf"{main}.smoothers.\1"),
        (r"decode_head\.(fpn_bottleneck)", rf"{main}.fuse"),
        (r"auxiliary_head\.convs\.(0)", rf"{auxiliary}.reduce"),
    )
    rows = [
        (rf"{theirs}\.{part}\.(.+)", rf"{ours}.{name}.\2")
        for theirs, ours in units
        for part, name in (("conv", "conv"), ("bn", "norm"))
    ]
    rows += [
        (r"decode_head\.conv_seg\.(.+)", rf"{main}.classify.\1"),
        (r"auxiliary_head\.conv_seg\.(.+)", rf"{auxiliary}.classify.\1"),
    ]
    return tuple(rows)
