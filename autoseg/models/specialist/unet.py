"""U-Net in its common form: five levels, padded convolutions, batch norm, transposed convolutions in the decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import rename_keys
from autoseg.models.layers.convolution import double_convolution

SPEC = ModelSpec(
    name="unet",
    title="U-Net",
    family="specialist",
    citation=(
        "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015."
    ),
    variants=(Variant("16", 1_942_594), Variant("32", 7_763_074), Variant("64", 31_037_698)),
    default_variant="64",
    channels_last_on_cpu=True,
    cam_layer="decoder.3.fuse",
)

_LEVELS = 5
_OFFICIAL = (
    (r"inc\.double_conv\.(.+)", r"encoder.0.\1"),
    (r"down(\d)\.maxpool_conv\.1\.double_conv\.(.+)", r"encoder.\1.\2"),
    *((rf"up{level + 1}\.up\.(.+)", rf"decoder.{level}.grow.\1") for level in range(_LEVELS - 1)),
    *((rf"up{level + 1}\.conv\.double_conv\.(.+)", rf"decoder.{level}.fuse.\1") for level in range(_LEVELS - 1)),
    (r"outc\.conv\.(.+)", r"head.\1"),
)


class UpStep(nn.Module):
    """Upsamples a map (B, C, h, w), pads it to its skip's size, concatenates both and convolves: (B, C/2, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.fuse = double_convolution(channels, channels // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.grow(x)
        # Pooling drops the last row and column of an odd map; zeros replace them.
        bottom, right = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        if bottom or right:
            x = F.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
        fused: Tensor = self.fuse(torch.cat([skip, x], dim=1))
        return fused


class UNet(SegmentationNetwork):
    """U-Net of Ronneberger et al. (2015) with batch norm and zero padding; any size from 16 pixels.

    base: channels of the first level; each of the four deeper levels doubles them.
    """

    stem_weights = ("encoder.0.0.weight",)
    head_weights = ("head.weight", "head.bias")

    def __init__(self, base: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(_LEVELS)]
        self.encoder = nn.ModuleList(double_convolution(a, b) for a, b in pairwise([in_channels, *widths]))
        self.decoder = nn.ModuleList(UpStep(width) for width in reversed(widths[1:]))
        self.head = nn.Conv2d(base, num_classes, 1)

    def segment(self, x: Tensor) -> ModelOutput:
        skips: list[Tensor] = []
        for level in self.encoder:
            x = level(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for step in self.decoder:
            x = step(x, skips.pop())
        return ModelOutput(self.head(x))

    def load_official(self, adapter: StateDictAdapter) -> None:
        rename_keys(adapter, _OFFICIAL)


def build(
    variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None = None
) -> SegmentationNetwork:
    """U-Net; the variant is the base width."""
    return UNet(int(variant), in_channels, num_classes)
