"""U-Net in its common form: five levels, padded convolutions, batch norm, transposed convolutions in the decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers.convolution import double_convolution
from autoseg.models.published_weights import direct

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
    full_resolution=True,
    weights=tuple(
        direct(
            f"https://download.pytorch.org/models/{file}.pth", variant="64", licence="BSD-3-Clause", study=True,
            trained_on=f"ImageNet-1k classification ({name}, upper four levels of the encoder)", megabytes=532,
        )
        for file, name in (("vgg13_bn-abd245e5", "VGG13 with batch norm"), ("vgg13-19584684", "VGG13"))
    ),
    cam_layer="decoder.3.fuse",
)

_LEVELS = 5
_NORM_EPS = 1e-5
_OFFICIAL = (
    (r"inc\.double_conv\.(.+)", r"encoder.0.\1"),
    (r"down(\d)\.maxpool_conv\.1\.double_conv\.(.+)", r"encoder.\1.\2"),
    *((rf"up{level + 1}\.up\.(.+)", rf"decoder.{level}.grow.\1") for level in range(_LEVELS - 1)),
    *((rf"up{level + 1}\.conv\.double_conv\.(.+)", rf"decoder.{level}.fuse.\1") for level in range(_LEVELS - 1)),
    (r"outc\.conv\.(.+)", r"head.\1"),
)
# VGG13's convolutions: where they are without and with batch norm, and their place in the encoder (level, layer).
_VGG13 = tuple(
    zip(
        (0, 2, 5, 7, 10, 12, 15, 17), (0, 3, 7, 10, 14, 17, 21, 24),
        ((level, layer) for level in range(4) for layer in (0, 3)), strict=True,
    )
)  # fmt: skip
_NOT_OF_VGG = (
    (r"classifier\..+", "belongs to the ImageNet classifier"),
    (r"features\.\d+\..+", "the deepest level is wider than VGG13's, or the layer has no bias before its norm"),
)


class UpStep(nn.Module):
    """Upsamples a map (B, C, h, w), pads it to its skip's size, concatenates both and convolves: (B, C/2, H, W)."""

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.fuse = double_convolution(channels, channels // 2, bias=not norm, norm=norm)

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

    base: channels of the first level; each of the four deeper levels doubles them. norm: False for convolutions with a bias and
    no batch norm.
    """

    stem_weights = ("encoder.0.0.weight",)
    head_weights = ("head.weight", "head.bias")

    def __init__(self, base: int, in_channels: int, num_classes: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = norm
        widths = [base * 2**level for level in range(_LEVELS)]
        self.encoder = nn.ModuleList(
            double_convolution(a, b, bias=not norm, norm=norm) for a, b in pairwise([in_channels, *widths])
        )
        self.decoder = nn.ModuleList(UpStep(width, norm) for width in reversed(widths[1:]))
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
        """Whole models, and torchvision's VGG13, with or without batch norm: its first eight convolutions fill the upper four
        levels of the encoder of the variant 64."""
        rename_keys(adapter, _OFFICIAL)
        if "features.0.weight" in adapter.remaining:
            _load_vgg13(adapter, self.norm)


def _load_vgg13(adapter: StateDictAdapter, norm: bool) -> None:
    """norm: whether the network has batch norm. One without takes that of the file into its convolutions."""
    normed = "features.1.running_var" in adapter.tensors
    for plain, with_norm, (level, layer) in _VGG13:
        convolution, number = f"features.{with_norm if normed else plain}", with_norm + 1
        rows: dict[str, tuple[str, ...]] = {f"{layer}.weight": (f"{convolution}.weight",)}
        if not norm:
            _assign_without_norm(adapter, f"encoder.{level}.{layer}", convolution, f"features.{number}" if normed else "")
            continue
        if normed:
            rows |= {f"{layer + 1}.{name}": (f"features.{number}.{name}",) for name in ("weight", "bias", "running_var")}
            # Our convolutions have no bias: without theirs the mean is lower by it.
            rows[f"{layer + 1}.running_mean"] = (f"features.{number}.running_mean", f"{convolution}.bias")
        for ours, theirs in rows.items():
            if all(name in adapter.tensors for name in theirs):
                adapter.assign(f"encoder.{level}.{ours}", *theirs, transform=torch.sub if len(theirs) == 2 else None)
    drop_matching(adapter, _NOT_OF_VGG)


def _assign_without_norm(adapter: StateDictAdapter, ours: str, convolution: str, norm: str) -> None:
    """A convolution and the batch norm after it ("": none) as one convolution with a bias."""
    names = [f"{convolution}.weight", f"{convolution}.bias"]
    statistics = [f"{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")] if norm else []
    if not all(name in adapter.tensors for name in (*names, *statistics)):
        return

    def kernel(weight: Tensor, *values: Tensor) -> Tensor:
        return weight * (values[0] / torch.sqrt(values[3] + _NORM_EPS)).view(-1, 1, 1, 1) if values else weight

    def bias(value: Tensor, *values: Tensor) -> Tensor:
        if not values:
            return value
        return (value - values[2]) * values[0] / torch.sqrt(values[3] + _NORM_EPS) + values[1]

    adapter.assign(f"{ours}.weight", names[0], *statistics, transform=kernel)
    adapter.assign(f"{ours}.bias", names[1], *statistics, transform=bias)


def build(
    variant: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    *,
    norm: bool = True,
) -> SegmentationNetwork:
    """U-Net; the variant is the base width. norm: False leaves batch norm out, as VGG's first form does."""
    return UNet(int(variant), in_channels, num_classes, norm)
