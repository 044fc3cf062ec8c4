"""TransNeXt: an encoder of aggregated attention and convolutional gated linear units, with the UPerNet decoder.

Shi: TransNeXt: Robust Foveal Visual Perception for Vision Transformers. CVPR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from autoseg.models.layers.aggregated_attention import (
    AggregatedAttention,
    CosineAttention,
    GlobalAttention,
    PositionBias,
    Size,
)
from autoseg.models.layers.initialisation import init_weights
from autoseg.models.published_weights import PublishedWeights, on_hub

_HEAD_CHANNELS = 24
_MLP_RATIOS = (8, 8, 4, 4)
_REDUCTIONS = (8, 4, 2, 1)
_PRETRAINED_SIDE = 224
_EPSILON = 1e-6
_DIVISOR = 32
_SEGMENTATION = "ADE20K segmentation"


@dataclass(frozen=True)
class _Size:
    """channels: of the first stage; each stage doubles them. depths: blocks of the four stages."""

    channels: int
    depths: tuple[int, int, int, int]
    drop_path: float


# The authors published segmentation with tiny and small. micro has the drop path of its ImageNet training.
_SIZES = {
    "micro": _Size(48, (2, 2, 15, 2), 0.15),
    "tiny": _Size(72, (2, 2, 15, 2), 0.4),
    "small": _Size(72, (5, 5, 22, 5), 0.6),
}


_MEGABYTES = {"micro": 51, "tiny": 113, "small": 199}


def _published(size: str, repository: str, file: str, data: str) -> PublishedWeights:
    megabytes = _MEGABYTES[size] if data != _SEGMENTATION else 0
    return on_hub(
        f"DaiShiResearch/{repository}", file, trained_on=data, variant=size, licence="Apache-2.0", megabytes=megabytes
    )


SPEC = ModelSpec(
    name="transnext",
    title="TransNeXt + UPerHead",
    family="generalist",
    citation="Shi D.: TransNeXt: Robust Foveal Visual Perception for Vision Transformers. CVPR 2024.",
    variants=(Variant("micro", 41_561_204), Variant("tiny", 58_404_012), Variant("small", 79_886_616)),
    default_variant="tiny",
    divisor=_DIVISOR,
    deep_supervision=True,
    warmup_epochs=1,
    weights=(
        *(
            _published(size, f"transnext-{size}-224-1k", f"transnext_{size}_224_1k.pth", "ImageNet-1k (encoder)")
            for size in _SIZES
        ),
        *(
            _published(
                size,
                f"upernet-transnext-{size}-ade",
                f"upernet_transnext_{size}_512x512_160k_ade20k_in1k.pth",
                _SEGMENTATION,
            )
            for size in ("tiny", "small")
        ),
    ),
    cam_layer="decoder.fuse",
)


def _official_names() -> tuple[tuple[str, str], ...]:
    rows: list[tuple[str, str]] = []
    for i in range(4):
        stage, block, ours = f"encoder.stages.{i}", rf"(?:backbone\.)?block{i + 1}\.(\d+)", rf"encoder.stages.{i}.blocks.\1"
        rows += [
            (rf"(?:backbone\.)?patch_embed{i + 1}\.proj\.(.+)", rf"{stage}.embed.\1"),
            (rf"(?:backbone\.)?patch_embed{i + 1}\.norm\.(.+)", rf"{stage}.embed_norm.\1"),
            (rf"(?:backbone\.)?norm{i + 1}\.(.+)", rf"{stage}.norm.\1"),
            (rf"{block}\.norm1\.(.+)", rf"{ours}.attention_norm.\2"),
            (rf"{block}\.norm2\.(.+)", rf"{ours}.unit_norm.\2"),
            (rf"{block}\.attn\.temperature", rf"{ours}.attention.temperature"),
            (rf"{block}\.attn\.query_embedding", rf"{ours}.attention.common_query"),
            (rf"{block}\.attn\.relative_pos_bias_local", rf"{ours}.attention.neighbour_bias"),
            (rf"{block}\.attn\.learnable_tokens", rf"{ours}.attention.tokens"),
            (rf"{block}\.attn\.learnable_bias", rf"{ours}.attention.token_bias"),
            (rf"{block}\.attn\.qkv\.(.+)", rf"{ours}.attention.query_key_value.\2"),
            (rf"{block}\.attn\.q\.(.+)", rf"{ours}.attention.query.\2"),
            (rf"{block}\.attn\.kv\.(.+)", rf"{ours}.attention.key_value.\2"),
            (rf"{block}\.attn\.proj\.(.+)", rf"{ours}.attention.project.\2"),
            (rf"{block}\.attn\.sr\.(.+)", rf"{ours}.attention.reduce.\2"),
            (rf"{block}\.attn\.norm\.(.+)", rf"{ours}.attention.reduce_norm.\2"),
            (rf"{block}\.attn\.cpb_fc1\.(.+)", rf"{ours}.attention.bias.widen.\2"),
            (rf"{block}\.attn\.cpb_fc2\.(.+)", rf"{ours}.attention.bias.narrow.\2"),
            (rf"{block}\.mlp\.fc1\.(.+)", rf"{ours}.unit.widen.\2"),
            (rf"{block}\.mlp\.dwconv\.dwconv\.(.+)", rf"{ours}.unit.look.\2"),
            (rf"{block}\.mlp\.fc2\.(.+)", rf"{ours}.unit.narrow.\2"),
        ]
    return (*rows, *upernet.official_names())


_OFFICIAL = _official_names()


class GatedUnit(nn.Module):
    """Feed-forward whose first half, after a depth-wise 3x3 convolution, gates the second: (B, H * W, C) -> same shape."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        # Two thirds of a plain feed-forward's width, so that both halves together have its cost.
        hidden = 2 * channels * ratio // 3
        self.widen = nn.Linear(channels, 2 * hidden)
        self.look = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        gate, value = self.widen(tokens).chunk(2, dim=2)
        gate = self.look(gate.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        return self.narrow(F.gelu(gate) * value)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a gated unit, each with pre-norm and residual: (B, H * W, C) -> same shape."""

    def __init__(self, channels: int, attention: CosineAttention, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.attention = attention
        self.unit_norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.unit = GatedUnit(channels, ratio)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens), size))
        return tokens + self.drop_path(self.unit(self.unit_norm(tokens), size))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Overlapping patch embedding and blocks: (B, C, H, W) -> (B, C', H/s, W/s), s = 4 in the first stage, else 2.

    number: 0 to 3. side: (H/s, W/s) in training, or None (see `PositionBias`).
    """

    def __init__(self, number: int, in_channels: int, channels: int, drop_paths: list[float], side: Size | None) -> None:
        super().__init__()
        kernel, stride = (7, 4) if number == 0 else (3, 2)
        self.embed = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList()
        heads, reduction, pretrained = channels // _HEAD_CHANNELS, _REDUCTIONS[number], _PRETRAINED_SIDE >> (number + 2)
        for rate in drop_paths:
            bias = PositionBias(heads, reduction, pretrained, side)
            kind = AggregatedAttention if reduction > 1 else GlobalAttention
            self.blocks.append(Block(channels, kind(channels, heads, bias), _MLP_RATIOS[number], rate))
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        size = (x.shape[2], x.shape[3])
        tokens = self.embed_norm(x.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, size)
        return self.norm(tokens).transpose(1, 2).unflatten(2, size)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Image (B, C, H, W) -> four maps of strides 4, 8, 16, 32 with `widths` channels."""

    def __init__(self, size: _Size, in_channels: int, training_size: Size | None) -> None:
        super().__init__()
        self.widths = [size.channels * 2**i for i in range(4)]
        total = sum(size.depths)
        rates = [size.drop_path * i / (total - 1) for i in range(total)]
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(self.widths, size.depths, strict=True)):
            previous = self.widths[i - 1] if i else in_channels
            side = None if training_size is None else (training_size[0] >> (i + 2), training_size[1] >> (i + 2))
            self.stages.append(Stage(i, previous, width, rates[:depth], side))
            del rates[:depth]
        self.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class TransNeXt(SegmentationNetwork):
    """Logits (B, K, H/4, W/4); in training also auxiliary logits at stride 16."""

    divisor = _DIVISOR
    stem_weights = ("encoder.stages.0.embed.weight",)
    head_weights = (
        "decoder.classify.weight",
        "decoder.classify.bias",
        "auxiliary.classify.weight",
        "auxiliary.classify.bias",
    )

    def __init__(self, size: _Size, in_channels: int, num_classes: int, training_size: Size | None) -> None:
        super().__init__()
        self.encoder = Encoder(size, in_channels, training_size)
        self.decoder = upernet.UPerHead(self.encoder.widths, num_classes)
        self.auxiliary = upernet.AuxiliaryHead(self.encoder.widths[2], num_classes)

    def segment(self, x: Tensor) -> ModelOutput:
        maps = self.encoder(x)
        auxiliary = ((self.auxiliary(maps[2]), upernet.AUXILIARY_WEIGHT),) if self.training else ()
        return ModelOutput(self.decoder(maps), auxiliary)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and its ImageNet files (`transnext_*_224_1k.pth`)."""
        rename_keys(adapter, _OFFICIAL)
        for name in adapter.remaining:
            if name.startswith("head."):
                adapter.drop(name, "belongs to the ImageNet classifier")
            elif "relative_pos_index" in name or "relative_coords_table" in name:
                adapter.drop(name, "computed by the network")


def build(
    variant: str, in_channels: int, num_classes: int, input_size: Size | None = None, extrapolate: bool = False
) -> TransNeXt:
    """TransNeXt of size `variant` with a decoder of 512 channels.

    input_size: size of the position biases; they are interpolated for images of other sizes, as published. Without it, or
    with `extrapolate`, they are computed for each size (the paper's extrapolation). The parameters are the same.
    """
    training_size = None
    if input_size is not None and not extrapolate:
        training_size = (-(-input_size[0] // _DIVISOR) * _DIVISOR, -(-input_size[1] // _DIVISOR) * _DIVISOR)
    return TransNeXt(_SIZES[variant], in_channels, num_classes, training_size)
