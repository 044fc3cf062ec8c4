"""InternImage: an encoder of deformable convolutions with the UPerNet decoder.

Wang et al.: InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions. CVPR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from autoseg.models.base import (
    ModelOutput,
    ModelSpec,
    SegmentationNetwork,
    StateDictAdapter,
    Variant,
)
from autoseg.models.key_mapping import rename_keys
from autoseg.models.layers import upernet
from autoseg.models.layers.dcnv3 import DeformableConvolution
from autoseg.models.published_weights import on_hub

_MLP_RATIO = 4
_GROUP_CHANNELS = 16
_EPSILON = 1e-6


@dataclass(frozen=True)
class _Size:
    """channels: of the first stage; each stage doubles them. norm_after: post-norm instead of pre-norm."""

    channels: int
    depths: tuple[int, int, int, int]
    drop_path: float
    norm_after: bool


_SIZES = {
    "t": _Size(64, (4, 4, 18, 4), 0.2, norm_after=False),
    "s": _Size(80, (4, 4, 21, 4), 0.3, norm_after=True),
    "b": _Size(112, (4, 4, 21, 4), 0.4, norm_after=True),
}

SPEC = ModelSpec(
    name="internimage",
    title="InternImage + UPerHead",
    family="generalist",
    citation=(
        "Wang W., Dai J., Chen Z., Huang Z., Li Z., Zhu X., Hu X., Lu T., Lu L., Li H., Wang X., Qiao Y.: InternImage: "
        "Exploring Large-Scale Vision Foundation Models with Deformable Convolutions. CVPR 2023."
    ),
    variants=(Variant("t", 58_963_188), Variant("s", 79_752_996), Variant("b", 128_273_892)),
    default_variant="t",
    divisor=32,
    deep_supervision=True,
    warmup_epochs=1,
    weights=tuple(
        on_hub("OpenGVLab/InternImage", f"{file}.pth", trained_on=data, variant=size, licence="MIT", megabytes=megabytes)
        for size, encoder in (("t", 120), ("s", 201), ("b", 389))
        for file, data, megabytes in (
            (f"internimage_{size}_1k_224", "ImageNet-1k classification (encoder)", encoder),
            (f"upernet_internimage_{size}_512_160k_ade20k", "ADE20K segmentation", 0),
        )
    ),
    cam_layer="decoder.fuse",
)

_LEVEL, _BLOCK = r"(?:backbone\.)?levels\.(\d)", r"(?:backbone\.)?levels\.(\d)\.blocks\.(\d+)"
_OURS = r"encoder.levels.\1.blocks.\2"
_OFFICIAL = (
    (r"(?:backbone\.)?patch_embed\.conv(\d)\.(.+)", r"encoder.stem.conv\1.\2"),
    (r"(?:backbone\.)?patch_embed\.norm(\d)\.1\.(.+)", r"encoder.stem.norm\1.\2"),
    (_BLOCK + r"\.gamma1", _OURS + ".look_scale"),
    (_BLOCK + r"\.gamma2", _OURS + ".feed_scale"),
    (_BLOCK + r"\.norm1\.0\.(.+)", _OURS + r".look_norm.\3"),
    (_BLOCK + r"\.norm2\.0\.(.+)", _OURS + r".feed_norm.\3"),
    (_BLOCK + r"\.dcn\.dw_conv\.0\.(.+)", _OURS + r".look.look.\3"),
    (_BLOCK + r"\.dcn\.dw_conv\.1\.1\.(.+)", _OURS + r".look.look_norm.\3"),
    (_BLOCK + r"\.dcn\.offset\.(.+)", _OURS + r".look.offset.\3"),
    (_BLOCK + r"\.dcn\.mask\.(.+)", _OURS + r".look.mix.\3"),
    (_BLOCK + r"\.dcn\.input_proj\.(.+)", _OURS + r".look.value.\3"),
    (_BLOCK + r"\.dcn\.output_proj\.(.+)", _OURS + r".look.project.\3"),
    (_BLOCK + r"\.mlp\.fc1\.(.+)", _OURS + r".widen.\3"),
    (_BLOCK + r"\.mlp\.fc2\.(.+)", _OURS + r".narrow.\3"),
    (_LEVEL + r"\.norm\.0\.(.+)", r"encoder.levels.\1.norm.\2"),
    (_LEVEL + r"\.downsample\.conv\.(.+)", r"encoder.levels.\1.shrink.\2"),
    (_LEVEL + r"\.downsample\.norm\.1\.(.+)", r"encoder.levels.\1.shrink_norm.\2"),
    *upernet.official_names(),
)


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=_EPSILON)


def _convolve(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolution of a map with channels last."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class Stem(nn.Module):
    """Image (B, C, H, W) -> map with channels last (B, H/4, W/4, C')."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1)
        self.norm1 = _norm(channels // 2)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x).permute(0, 2, 3, 1)))
        return self.norm2(_convolve(self.conv2, x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Deformable convolution and feed-forward, each with layer scale and residual: (B, H, W, C) -> same shape."""

    def __init__(self, channels: int, drop_path: float, norm_after: bool) -> None:
        super().__init__()
        self.norm_after = norm_after
        self.look_norm = _norm(channels)
        self.look = DeformableConvolution(channels, channels // _GROUP_CHANNELS)
        self.look_scale = nn.Parameter(torch.ones(channels))
        self.feed_norm = _norm(channels)
        self.widen = nn.Linear(channels, _MLP_RATIO * channels)
        self.narrow = nn.Linear(_MLP_RATIO * channels, channels)
        self.feed_scale = nn.Parameter(torch.ones(channels))
        self.drop_path = StochasticDepth(drop_path, "row")
        for layer in (self.widen, self.narrow):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        if self.norm_after:
            x = x + self.drop_path(self.look_scale * self.look_norm(self.look(x)))
            return x + self.drop_path(self.feed_scale * self.feed_norm(self._feed_forward(x)))  # type: ignore[no-any-return]
        x = x + self.drop_path(self.look_scale * self.look(self.look_norm(x)))
        return x + self.drop_path(self.feed_scale * self._feed_forward(self.feed_norm(x)))  # type: ignore[no-any-return]


class Level(nn.Module):
    """Blocks at one stride: (B, H, W, C) -> the level's map (same shape) and the next level's input (half the size)."""

    def __init__(self, channels: int, drop_paths: list[float], norm_after: bool, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, rate, norm_after) for rate in drop_paths)
        # With post-norm in every block the level's output needs no norm.
        self.norm = nn.Identity() if norm_after else _norm(channels)
        self.shrink: nn.Conv2d | None = None
        if not last:
            self.shrink = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
            self.shrink_norm = _norm(2 * channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x, x if self.shrink is None else self.shrink_norm(_convolve(self.shrink, x))


class Encoder(nn.Module):
    """Image (B, C, H, W) -> four maps of strides 4, 8, 16, 32 with `widths` channels (channels first)."""

    def __init__(self, size: _Size, in_channels: int) -> None:
        super().__init__()
        self.widths = [size.channels * 2**i for i in range(4)]
        total = sum(size.depths)
        rates = [size.drop_path * i / (total - 1) for i in range(total)]
        self.stem = Stem(in_channels, size.channels)
        self.levels = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(self.widths, size.depths, strict=True)):
            self.levels.append(Level(width, rates[:depth], size.norm_after, last=i == 3))
            del rates[:depth]

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for level in self.levels:
            out, x = level(x)
            maps.append(out.permute(0, 3, 1, 2))
        return maps


class InternImage(SegmentationNetwork):
    """Logits (B, K, H/4, W/4); in training also auxiliary logits at stride 16."""

    divisor = 32
    stem_weights = ("encoder.stem.conv1.weight",)
    head_weights = (
        "decoder.classify.weight",
        "decoder.classify.bias",
        "auxiliary.classify.weight",
        "auxiliary.classify.bias",
    )

    def __init__(self, size: _Size, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(size, in_channels)
        self.decoder = upernet.UPerHead(self.encoder.widths, num_classes)
        self.auxiliary = upernet.AuxiliaryHead(self.encoder.widths[2], num_classes)

    def segment(self, x: Tensor) -> ModelOutput:
        maps = self.encoder(x)
        auxiliary = ((self.auxiliary(maps[2]), upernet.AUXILIARY_WEIGHT),) if self.training else ()
        return ModelOutput(self.decoder(maps), auxiliary)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and its ImageNet files (`internimage_*_1k_224.pth`)."""
        rename_keys(adapter, _OFFICIAL)
        for name in adapter.remaining:
            if name.startswith(("conv_head.", "head.")):
                adapter.drop(name, "belongs to the ImageNet classifier")


def build(variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None = None) -> InternImage:
    """InternImage of size `variant` with a decoder of 512 channels. No options."""
    return InternImage(_SIZES[variant], in_channels, num_classes)
