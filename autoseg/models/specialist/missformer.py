"""MISSFormer: a U-shaped transformer. In the bridge between encoder and decoder all scales attend to each other."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers import mit, mit_names
from autoseg.models.layers.mit import CLASSIFIER, ReducedAttention, to_map, to_tokens

SPEC = ModelSpec(
    name="missformer",
    title="MISSFormer",
    family="specialist",
    citation=(
        "Huang, Deng, Li, Yuan: MISSFormer: An Effective Transformer for 2D Medical Image Segmentation. "
        "IEEE Transactions on Medical Imaging 2023."
    ),
    variants=(
        Variant("224", 42_462_082),
        Variant(
            "free", 35_452_290, note="any multiple of 32; without the parameters that are never used", any_size=True
        ),
    ),
    default_variant="224",
    divisor=32,
    fixed_size=224,
    batch_statistics=False,
    weights=mit.weights_of("b1", variant="", study=True, trained_on="ImageNet-1k classification (MiT-B1, encoder)"),
    cam_layer="decoder.2",
)

# Per level, strides 4, 8, 16, 32.
_WIDTHS, _HEADS, _REDUCTIONS = (64, 128, 320, 512), (1, 2, 5, 8), (8, 4, 2, 1)
_BLOCKS, _BRIDGE_LAYERS, _MLP_RATIO = 2, 4, 4
# In the bridge the tokens of all levels have the finest level's width.
_BRIDGE_WIDTH = _WIDTHS[0]
_FINAL_UPSAMPLING = 4

_FEED_NAMES = (
    ("fc1", "widen"),
    ("dwconv.dwconv", "mix"),
    ("fc2", "narrow"),
    ("norm1", "norm"),
    ("norm2", "spare.0"),
    ("norm3", "spare.1"),
)
_ATTENTION_NAMES = (
    ("attn.q", "attention.query"),
    ("attn.kv", "attention.key_value"),
    ("attn.proj", "attention.project"),
    ("norm1", "attention_norm"),
    ("norm2", "feed_norm"),
)
_BLOCK_NAMES = (
    *_ATTENTION_NAMES,
    ("attn.sr", "attention.reduce"),
    ("attn.norm", "attention.reduce_norm"),
    *((f"mlp.{official}", f"feed.{ours}") for official, ours in _FEED_NAMES),
)
_BRIDGE_NAMES = (
    *_ATTENTION_NAMES,
    *((f"attn.scale_reduce.sr{i}", f"attention.reduce.{i}") for i in range(3)),
    ("attn.scale_reduce.norm", "attention.reduce_norm"),
    *((f"mixffn{i + 1}.{official}", f"feeds.{i}.{ours}") for i in range(4) for official, ours in _FEED_NAMES),
)


def _rows(official_prefix: str, ours: str, names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((rf"{official_prefix}{re.escape(a)}\.(?P<rest>.+)", rf"{ours}{b}.\g<rest>") for a, b in names)


_OFFICIAL = (
    *((rf"(?:backbone\.)?patch_embed{i + 1}\.proj\.(.+)", rf"encoder.{i}.embed.\1") for i in range(4)),
    *((rf"(?:backbone\.)?patch_embed{i + 1}\.norm\.(.+)", rf"encoder.{i}.embed_norm.\1") for i in range(4)),
    *(
        row
        for i in range(4)
        for row in _rows(rf"(?:backbone\.)?block{i + 1}\.(\d)\.", rf"encoder.{i}.blocks.\1.", _BLOCK_NAMES)
    ),
    *((rf"(?:backbone\.)?norm{i + 1}\.(.+)", rf"encoder.{i}.norm.\1") for i in range(4)),
    *(row for i in range(4) for row in _rows(rf"bridge\.bridge_layer{i + 1}\.", f"bridge.{i}.", _BRIDGE_NAMES)),
    *((rf"decoder_{3 - i}\.layer_up\.expand\.(.+)", rf"grow.{i}.widen.\1") for i in range(4)),
    *((rf"decoder_{3 - i}\.layer_up\.norm\.(.+)", rf"grow.{i}.norm.\1") for i in range(4)),
    *((rf"decoder_{2 - i}\.concat_linear\.(.+)", rf"decoder.{i}.join.\1") for i in range(3)),
    *(
        row
        for i in range(3)
        for j in range(2)
        for row in _rows(rf"decoder_{2 - i}\.layer_former_{j + 1}\.", f"decoder.{i}.blocks.{j}.", _BLOCK_NAMES)
    ),
    (r"decoder_0\.last_layer\.bias", "head.bias"),
    (r"decoder_3\.concat_linear\.(.+)", r"idle.join.\1"),
    *(row for j in range(2) for row in _rows(rf"decoder_3\.layer_former_{j + 1}\.", f"idle.blocks.{j}.", _BLOCK_NAMES)),
)
_NEVER_USED = (
    (r"decoder_3\.(concat_linear|layer_former_[12])\..+", "never used by the published network"),
    (r".*(mlp|mixffn\d)\.norm[23]\..+", "never used by the published network"),
)


class FeedForward(nn.Module):
    """Linear layer, depth-wise 3x3 convolution with residual, norm, GELU, linear layer: (B, H * W, C) -> same shape.

    with_unused: have the two norms that the official code never calls.
    """

    def __init__(self, channels: int, with_unused: bool) -> None:
        super().__init__()
        hidden = _MLP_RATIO * channels
        self.widen = nn.Linear(channels, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden)
        self.narrow = nn.Linear(hidden, channels)
        self.spare = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2 if with_unused else 0))

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        wide = self.widen(tokens)
        mixed = to_tokens(self.mix(to_map(wide, size)))
        return self.narrow(F.gelu(self.norm(mixed + wide)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention to a reduced map and feed-forward, each with pre-norm and residual: (B, H * W, C) -> same shape."""

    def __init__(self, level: int, with_unused: bool) -> None:
        super().__init__()
        width = _WIDTHS[level]
        self.attention_norm = nn.LayerNorm(width)
        self.attention = ReducedAttention(width, _HEADS[level], _REDUCTIONS[level])
        self.feed_norm = nn.LayerNorm(width)
        self.feed = FeedForward(width, with_unused)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens), size)
        return tokens + self.feed(self.feed_norm(tokens), size)  # type: ignore[no-any-return]


class EncoderLevel(nn.Module):
    """Overlapping patch embedding and two blocks: (B, C, H, W) -> (B, C', H/s, W/s), s = 4 (first) or 2."""

    def __init__(self, level: int, in_channels: int, with_unused: bool) -> None:
        super().__init__()
        kernel, stride = (3, 2) if level else (7, 4)
        self.embed = nn.Conv2d(in_channels, _WIDTHS[level], kernel, stride=stride, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(_WIDTHS[level])
        self.blocks = nn.ModuleList(Block(level, with_unused) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(_WIDTHS[level])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        size = (x.shape[2], x.shape[3])
        tokens = self.embed_norm(to_tokens(x))
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(self.norm(tokens), size)


class TokenLayout:
    """Layout of the bridge's tokens (B, N, 64): level after level; a pixel of C channels is C / 64 consecutive tokens."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.sizes = [(x.shape[2], x.shape[3]) for x in maps]
        self.lengths = [h * w * width // _BRIDGE_WIDTH for (h, w), width in zip(self.sizes, _WIDTHS, strict=True)]

    def join(self, levels: list[Tensor]) -> Tensor:
        """Tokens of each level (B, H * W, C) to the bridge's tokens."""
        return torch.cat([tokens.reshape(tokens.shape[0], -1, _BRIDGE_WIDTH) for tokens in levels], dim=1)

    def split(self, tokens: Tensor) -> list[Tensor]:
        """The bridge's tokens to tokens of each level."""
        parts = tokens.split(self.lengths, dim=1)
        return [x.reshape(x.shape[0], -1, width) for x, width in zip(parts, _WIDTHS, strict=True)]


class BridgeAttention(nn.Module):
    """Single-head attention of all tokens to all levels, each reduced to the coarsest level's size."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(_BRIDGE_WIDTH, _BRIDGE_WIDTH)
        self.key_value = nn.Linear(_BRIDGE_WIDTH, 2 * _BRIDGE_WIDTH)
        self.project = nn.Linear(_BRIDGE_WIDTH, _BRIDGE_WIDTH)
        self.reduce = nn.ModuleList(nn.Conv2d(w, w, r, stride=r) for w, r in zip(_WIDTHS, _REDUCTIONS, strict=True) if r > 1)
        self.reduce_norm = nn.LayerNorm(_BRIDGE_WIDTH)

    def forward(self, tokens: Tensor, layout: TokenLayout) -> Tensor:
        *levels, coarsest = layout.split(tokens)
        reduced = []
        for reduce, level, size in zip(self.reduce, levels, layout.sizes, strict=False):
            # As published: (B, C, h, w) is reshaped to 64 rows, which mixes channels and positions.
            reduced.append(reduce(to_map(level, size)).reshape(level.shape[0], _BRIDGE_WIDTH, -1).transpose(1, 2))
        reduced.append(coarsest.reshape(coarsest.shape[0], -1, _BRIDGE_WIDTH))
        context = self.key_value(self.reduce_norm(torch.cat(reduced, dim=1)))
        key, value = context[:, None].chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(self.query(tokens)[:, None], key, value)[:, 0]
        return self.project(attended)  # type: ignore[no-any-return]


class BridgeLayer(nn.Module):
    """Attention over all levels, then a separate feed-forward for each level: (B, N, 64) -> same shape."""

    def __init__(self, with_unused: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(_BRIDGE_WIDTH)
        self.attention = BridgeAttention()
        self.feed_norm = nn.LayerNorm(_BRIDGE_WIDTH)
        self.feeds = nn.ModuleList(FeedForward(width, with_unused) for width in _WIDTHS)

    def forward(self, tokens: Tensor, layout: TokenLayout) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens), layout)
        levels = layout.split(self.feed_norm(tokens))
        return tokens + layout.join(
            [feed(x, size) for feed, x, size in zip(self.feeds, levels, layout.sizes, strict=True)]
        )


def _to_pixels(x: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Tokens with factor^2 pixels each, (B, H * W, factor^2, C), as a map (B, C, factor * H, factor * W)."""
    grid: Tensor = x.unflatten(2, (factor, factor)).unflatten(1, size)
    batch, channels = x.shape[0], x.shape[3]
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, size[0] * factor, size[1] * factor)


class PatchExpand(nn.Module):
    """Linear layer that expands each token to factor^2 pixels, and norm: (B, C, H, W) -> (B, H * W, factor^2, C')."""

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.shape = (factor**2, out_channels)
        self.widen = nn.Linear(channels, factor**2 * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.widen(to_tokens(x)).unflatten(2, self.shape))  # type: ignore[no-any-return]


class DecoderLevel(nn.Module):
    """Concatenates the upsampled map with its skip, then two blocks: (B, C', H, W) and (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, level: int, up_channels: int, with_unused: bool) -> None:
        super().__init__()
        self.join = nn.Linear(up_channels + _WIDTHS[level], _WIDTHS[level])
        self.blocks = nn.ModuleList(Block(level, with_unused) for _ in range(_BLOCKS))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        tokens = self.join(to_tokens(torch.cat([x, skip], dim=1)))
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(tokens, size)


def _init_decoder(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MISSFormer(SegmentationNetwork):
    """MISSFormer of Huang et al. (2023).

    published: resizes its input to 224 x 224 and has the unused parameters of the official code. Otherwise the same
    network at any multiple of 32, without them.
    """

    stem_weights = ("encoder.0.embed.weight",)
    head_weights = ("head.weight", "head.bias")

    def __init__(self, published: bool, in_channels: int, num_classes: int, antialias: bool = False) -> None:
        super().__init__()
        self.published, self.antialias = published, antialias
        self.fixed_size = 224 if published else None
        self.divisor = 32
        previous = (in_channels, *_WIDTHS[:3])
        self.encoder = nn.ModuleList(EncoderLevel(i, previous[i], published) for i in range(4))
        self.bridge = nn.ModuleList(BridgeLayer(published) for _ in range(_BRIDGE_LAYERS))
        up_channels = (_WIDTHS[3] // 2, _WIDTHS[2] // 2, _WIDTHS[1] // 2)
        self.grow = nn.ModuleList(PatchExpand(2 * width, width, 2) for width in up_channels)
        self.grow.append(PatchExpand(_BRIDGE_WIDTH, _BRIDGE_WIDTH, _FINAL_UPSAMPLING))
        self.decoder = nn.ModuleList(DecoderLevel(2 - i, width, published) for i, width in enumerate(up_channels))
        # A 1x1 convolution in the official code. As a linear layer it runs before pixels are rearranged.
        self.head = nn.Linear(_BRIDGE_WIDTH, num_classes)
        parts: list[nn.Module] = [self.grow, self.decoder, self.head]
        if published:
            width = _WIDTHS[3]
            blocks = nn.ModuleList(Block(3, with_unused=True) for _ in range(_BLOCKS))
            self.idle = nn.ModuleDict({"join": nn.Linear(2 * width, width), "blocks": blocks})
            parts.append(self.idle)
            names = [name for name, _ in self.named_parameters()]
            self.unused_parameters = tuple(n for n in names if n.startswith("idle.") or ".spare." in n)
        for part in parts:
            part.apply(_init_decoder)

    def segment(self, x: Tensor) -> ModelOutput:
        maps: list[Tensor] = []
        for level in self.encoder:
            x = level(x)
            maps.append(x)
        layout = TokenLayout(maps)
        tokens = layout.join([to_tokens(x) for x in maps])
        for layer in self.bridge:
            tokens = layer(tokens, layout)
        *skips, x = (to_map(tokens, size) for tokens, size in zip(layout.split(tokens), layout.sizes, strict=True))
        for grow, level in zip(self.grow, self.decoder, strict=False):
            x = level(_to_pixels(grow(x), (x.shape[2], x.shape[3]), 2), skips.pop())
        return ModelOutput(_to_pixels(self.head(self.grow[3](x)), (x.shape[2], x.shape[3]), _FINAL_UPSAMPLING))

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """MiT-B1 of transformers and mmsegmentation."""
        return mit_names.to_official(tensors)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models, and MiT-B1: it has every tensor of the encoder except the norms inside the feed-forward blocks."""
        drop_matching(adapter, [CLASSIFIER])
        if not self.published:
            drop_matching(adapter, _NEVER_USED)
        head = "decoder_0.last_layer.weight"
        if head in adapter.remaining:
            adapter.assign("head.weight", head, transform=lambda kernel: kernel.flatten(1))
        rename_keys(adapter, _OFFICIAL)


def build(
    variant: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    *,
    antialias: bool = False,
) -> SegmentationNetwork:
    """MISSFormer as published ("224") or at any size ("free").

    antialias: shrink larger inputs to 224 x 224 by averages of areas.
    """
    return MISSFormer(variant == "224", in_channels, num_classes, antialias)
