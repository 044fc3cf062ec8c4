"""A feature pyramid from a plain transformer, whose maps all have one stride.

Li et al.: Exploring Plain Vision Transformer Backbones for Object Detection (ViTDet). ECCV 2022. As in BEiT's UPerNet, each
level has a block of its own, and batch norms.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """Four maps (B, C, h, w) of a transformer, the earliest block first -> maps of 4, 2, 1 and 1/2 times their size.

    channels: C of each map. widths: channels of each result.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        first, second, third, fourth = channels
        self.widths = (first // 4, second // 2, third, fourth)
        self.levels = nn.ModuleList(
            (
                nn.Sequential(
                    nn.ConvTranspose2d(first, first // 2, 2, stride=2),
                    nn.BatchNorm2d(first // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(first // 2, first // 4, 2, stride=2),
                ),
                nn.ConvTranspose2d(second, second // 2, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2, stride=2, ceil_mode=True),
            )
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]
