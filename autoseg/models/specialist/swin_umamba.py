"""Swin-UMamba: a U-Net with the encoder VMamba, which scans the map in four directions with a selective state-space model.

Source: Liu et al., "Swin-UMamba: Mamba-based UNet with ImageNet-based pretraining", MICCAI 2024; the encoder is that of
Liu et al., "VMamba: Visual state space model", NeurIPS 2024.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers.selective_scan import selective_scan
from autoseg.models.layers.swin import PatchMerging
from autoseg.models.published_weights import PublishedWeights, direct

WIDTHS = (48, 96, 192, 384, 768)
DEPTHS = (2, 2, 9, 2)
STATE = 16
DIRECTIONS = 4
_VMAMBA: dict[str, Any] = {
    "trained_on": "ImageNet-1k classification (encoder)",
    "licence": "MIT",
    "sha256": "dbc0cc4f5ec0e45db5fba7c939d2c7d9b617e891ac10766912a8d604c37c5e47",
    "size": 91_649_482,
    "megabytes": 92,
}
_RELEASE = "https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls"

SPEC = ModelSpec(
    name="swin_umamba",
    title="Swin-UMamba",
    family="specialist",
    citation="Liu J., Yang H., Zhou H.-Y., Xi Y., Yu L., et al.: Swin-UMamba: Mamba-based UNet with ImageNet-based "
    "pretraining. MICCAI 2024.",
    variants=(Variant("tiny", 59_886_344),),
    default_variant="tiny",
    divisor=32,
    deep_supervision=True,
    batch_statistics=False,
    no_onnx="its scan is a loop over the image, which the exporter unrolls step by step",
    weights=(
        direct(f"{_RELEASE}/vssmtiny_dp01_ckpt_epoch_292.pth", **_VMAMBA),
        # The same file under the name that the authors' code looks for.
        PublishedWeights(file="vmamba_tiny_e292.pth", **_VMAMBA),
    ),
    cam_layer="ups.2",
)

# Official names to ours. Encoder-only files have VMamba's names.
_SCAN = (
    (r"self_attention\.x_proj_weight", "scan.read"),
    (r"self_attention\.dt_projs_weight", "scan.step"),
    (r"self_attention\.dt_projs_bias", "scan.step_bias"),
    (r"self_attention\.A_logs", "scan.decay"),
    (r"self_attention\.Ds", "scan.skip"),
    (r"self_attention\.in_proj\.weight", "scan.enter.weight"),
    (r"self_attention\.conv2d\.(weight|bias)", r"scan.local.\3"),
    (r"self_attention\.out_norm\.(weight|bias)", r"scan.norm.\3"),
    (r"self_attention\.out_proj\.weight", "scan.leave.weight"),
    (r"ln_1\.(weight|bias)", r"norm.\3"),
)
_RESIDUALS = (
    *((rf"encoder{i + 1}\.layer", f"skips.{i}") for i in range(5)),
    *((rf"decoder{6 - i}\.conv_block", f"ups.{i}.fuse") for i in range(5)),
    (r"decoder1\.layer", "finish"),
)
_OFFICIAL = (
    (r"stem\.0\.(.+)", r"stem.convolution.\1"),
    (r"stem\.1\.(.+)", r"stem.norm.\1"),
    (r"(?:vssm_encoder\.)?patch_embed\.(.+)", r"patches.\1"),
    (r"vssm_encoder\.downsamples\.(\d)\.(.+)", r"merges.\1.\2"),
    (r"layers\.(\d)\.downsample\.(.+)", r"merges.\1.\2"),
    *((rf"(?:vssm_encoder\.)?layers\.(\d)\.blocks\.(\d)\.{theirs}", rf"stages.\1.\2.{ours}") for theirs, ours in _SCAN),
    *((rf"decoder{6 - i}\.transp_conv\.conv\.weight", f"ups.{i}.grow.weight") for i in range(5)),
    *(
        (theirs + rf"\.conv{j + 1}\.conv\.weight", f"{ours}.{convolution}.weight")
        for theirs, ours in _RESIDUALS
        for j, convolution in enumerate(("first", "second", "shortcut"))
    ),
    (r"out_layers\.(\d)\.conv\.conv\.(.+)", r"heads.\1.\2"),
)
# The published code does not load these from an ImageNet file, but it loads patch_embed.norm.bias.
_DROPPED = (
    (r"(?:head|norm)\..+", "belongs to the ImageNet classifier"),
    (r"patch_embed\.(?:proj\..+|norm\.weight)", "replaced by the stem"),
)


def build(variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None) -> SwinUMamba:
    """Swin-UMamba with VMamba-T as its encoder, the only published size. No options."""
    return SwinUMamba(in_channels, num_classes)


class FourWayScan(nn.Module):
    """Selective scan of a map (B, H, W, C) along rows and columns, forwards and backwards: -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width, rank = 2 * channels, math.ceil(channels / 16)
        self.rank = rank
        self.enter = nn.Linear(channels, 2 * width, bias=False)
        self.local = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.read = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * STATE, width))
        self.step = nn.Parameter(torch.empty(DIRECTIONS, width, rank))
        self.step_bias = nn.Parameter(torch.empty(DIRECTIONS, width))
        self.decay = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(DIRECTIONS * width, 1))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS * width))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, channels, bias=False)
        nn.init.uniform_(self.read, -(width**-0.5), width**-0.5)
        nn.init.uniform_(self.step, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            # Step sizes log-uniform in 0.001 to 0.1; the bias is their inverse softplus.
            steps = torch.empty_like(self.step_bias).uniform_(math.log(0.001), math.log(0.1)).exp().clamp(min=1e-4)
            self.step_bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x, gate = self.enter(x).chunk(2, dim=-1)
        x = F.silu(self.local(x.permute(0, 3, 1, 2)))
        by_rows, by_columns = x.permute(2, 3, 0, 1).flatten(0, 1), x.permute(3, 2, 0, 1).flatten(0, 1)
        sequences = torch.stack([by_rows, by_columns, by_rows.flip(0), by_columns.flip(0)], dim=2)
        read = torch.einsum("lbkd,kcd->lbkc", sequences, self.read)
        step, B, C = read.split([self.rank, STATE, STATE], dim=-1)
        step = torch.einsum("lbkr,kdr->lbkd", step, self.step)
        decay = -self.decay.float().exp().unflatten(0, (DIRECTIONS, -1)).mT
        skip = self.skip.unflatten(0, (DIRECTIONS, -1))
        y = selective_scan(sequences, step, A=decay, B=B, C=C, skip=skip, bias=self.step_bias)
        along_rows = (y[:, :, 0] + y[:, :, 2].flip(0)).unflatten(0, (height, width))
        along_columns = (y[:, :, 1] + y[:, :, 3].flip(0)).unflatten(0, (width, height))
        merged = (along_rows + along_columns.transpose(0, 1)).permute(2, 0, 1, 3)
        projected: Tensor = self.leave(self.norm(merged) * F.silu(gate))
        return projected


class ScanBlock(nn.Module):
    """Four-way scan with pre-norm and residual: (B, H, W, C) -> same shape."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.scan = FourWayScan(channels)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        scanned: Tensor = self.drop_path(self.scan(self.norm(x)))
        return x + scanned


class Stem(nn.Module):
    """7x7 convolution with stride 2 and instance norm: (B, C, H, W) to (B, D, H/2, W/2)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, out_channels, 7, stride=2, padding=3)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.convolution(x))
        return normalised


class Patches(nn.Module):
    """Embedding of 2 x 2 patches: (B, C, H, W) to (B, H/2, W/2, D)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, 2, stride=2)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return normalised


class Residual(nn.Module):
    """Residual block of two 3x3 convolutions; every convolution is followed by an instance norm without weights."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(channels, out_channels, 1, bias=False) if channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        residual = F.leaky_relu(F.instance_norm(self.first(x)), 0.01, inplace=True)
        residual = F.instance_norm(self.second(residual))
        shortcut = x if self.shortcut is None else F.instance_norm(self.shortcut(x))
        return F.leaky_relu(residual + shortcut, 0.01, inplace=True)


class Up(nn.Module):
    """Upsamples a map and concatenates its skip: (B, C, H, W) and (B, D, 2H, 2W) to (B, D, 2H, 2W)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(channels, out_channels, 2, stride=2, bias=False)
        self.fuse = Residual(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        fused: Tensor = self.fuse(torch.cat([self.grow(x), skip], dim=1))
        return fused


class SwinUMamba(SegmentationNetwork):
    """The network. Auxiliary logits have 1/2 and 1/4 of the size.

    The published head at 1/8 exists but is never trained: nnU-Net gives it weight zero.
    """

    divisor = 32
    stem_weights = ("stem.convolution.weight", "skips.0.first.weight", "skips.0.shortcut.weight")
    unused_parameters = ("heads.3.weight", "heads.3.bias")

    def __init__(self, in_channels: int = 3, num_classes: int = 2) -> None:
        super().__init__()
        rates = iter(i * 0.2 / (sum(DEPTHS) - 1) for i in range(sum(DEPTHS)))
        self.stem = Stem(in_channels, WIDTHS[0])
        self.patches = Patches(WIDTHS[0], WIDTHS[1])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ScanBlock(width, next(rates)) for _ in range(depth)))
            for width, depth in zip(WIDTHS[1:], DEPTHS, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in WIDTHS[1:-1])
        self.skips = nn.ModuleList(Residual(a, b) for a, b in zip((in_channels, *WIDTHS[:-1]), WIDTHS, strict=True))
        self.ups = nn.ModuleList(Up(a, b) for a, b in zip((WIDTHS[-1], *WIDTHS[:0:-1]), WIDTHS[::-1], strict=True))
        self.finish = Residual(WIDTHS[0], WIDTHS[0])
        self.heads = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in WIDTHS[:-1])
        self.head_weights = tuple(f"heads.{name}" for name, _ in self.heads.named_parameters())
        for encoder in (self.stages, self.merges):
            encoder.apply(_init_linear)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/2 (the stem), 1/4, 1/8, 1/16 and 1/32 of the size."""
        maps = [self.stem(x)]
        x = self.patches(maps[0])
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.merges[i - 1](x))
            maps.append(x.permute(0, 3, 1, 2))
        return maps

    def levels(self, x: Tensor, count: int = 4) -> list[Tensor]:
        """Logits (B, K, h, w) of the first `count` heads: at the size of `x`, a half, a quarter and an eighth of it."""
        *maps, deepest = self.encode(x)
        skips = [skip(map_) for skip, map_ in zip(self.skips, [x, *maps], strict=True)]
        decoded = [deepest]
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            decoded.append(up(decoded[-1], skip))
        decoded[-1] = self.finish(decoded[-1])
        return [head(map_) for head, map_ in zip(self.heads[:count], decoded[::-1], strict=False)]

    def segment(self, x: Tensor) -> ModelOutput:
        if not self.training:
            return ModelOutput(self.levels(x, 1)[0])
        logits, half, quarter = self.levels(x, 3)
        return ModelOutput(logits, ((half, 0.5), (quarter, 0.25)))

    def load_official(self, adapter: StateDictAdapter) -> None:
        drop_matching(adapter, _DROPPED)
        rename_keys(adapter, _OFFICIAL)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
