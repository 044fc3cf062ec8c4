"""DPT's decoder: maps of a plain transformer are reassembled into a pyramid and fused from coarse to fine.

Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction. ICCV 2021. With batch norms, as there for segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.layers.upernet import resize_like


class _Residual(nn.Module):
    """ReLU, 3x3, norm, ReLU, 3x3, norm, plus the input: (B, C, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [
            (nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)) for _ in range(2)
        ]
        self.layers = nn.Sequential(*(layer for three in layers for layer in three))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class _Fusion(nn.Module):
    """A level (B, C, h, w) and the coarser result, resized to it and added, -> twice the level's size."""

    def __init__(self, channels: int, is_coarsest: bool) -> None:
        super().__init__()
        self.lateral = nn.Identity() if is_coarsest else _Residual(channels)
        self.residual = _Residual(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor, coarser: Tensor | None) -> Tensor:
        x = level if coarser is None else self.lateral(level) + resize_like(coarser, level)
        x = F.interpolate(self.residual(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.project(x)  # type: ignore[no-any-return]


class DPTDecoder(nn.Module):
    """Four maps (B, C, h, w) of one size, the earliest block first -> (B, channels, 8 h, 8 w).

    in_channels: C of each map. widths: channels to which they are projected before they are resized to 4, 2, 1 and 1/2
    times their size. channels: of the fusion.
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(in_channels, widths, strict=True))
        self.resize = nn.ModuleList(
            (
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            )
        )
        self.reduce = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1, bias=False) for width in widths)
        self.fusions = nn.ModuleList(_Fusion(channels, is_coarsest=number == 3) for number in range(4))
        self.fuse = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        levels = [
            reduce(resize(project(x)))
            for x, project, resize, reduce in zip(maps, self.project, self.resize, self.reduce, strict=True)
        ]
        result: Tensor | None = None
        for level, fusion in zip(reversed(levels), reversed(self.fusions), strict=True):
            result = fusion(level, result)
        return self.fuse(result)  # type: ignore[no-any-return]
