"""MiT, the Mix Transformer: the encoder of SegFormer.

Xie et al.: SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from autoseg.models.layers.initialisation import init_weights
from autoseg.models.published_weights import NVIDIA, PublishedWeights, direct, on_hub

# Channels and blocks of the four stages (strides 4, 8, 16, 32).
_SMALL, _LARGE = (32, 64, 160, 256), (64, 128, 320, 512)
SIZES = {
    "b0": (_SMALL, (2, 2, 2, 2)),
    "b1": (_LARGE, (2, 2, 2, 2)),
    "b2": (_LARGE, (3, 4, 6, 3)),
    "b3": (_LARGE, (3, 4, 18, 3)),
    "b4": (_LARGE, (3, 8, 27, 3)),
    "b5": (_LARGE, (3, 6, 40, 3)),
}
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_MLP_RATIO = 4
_DROP_PATH = 0.1
# Epsilon of the norms of blocks and stages; norms after a strided convolution have PyTorch's 1e-5.
_EPSILON = 1e-6

_ENCODER: dict[str, Any] = {"trained_on": "ImageNet-1k classification (encoder)", "licence": NVIDIA}
_MEGABYTES = {"b0": 13, "b1": 53, "b2": 97, "b3": 177, "b4": 244, "b5": 326}
_REVISIONS = {
    "b0": "9ce53d104d92d75aabb00aae70677aaab67e7c84",
    "b1": "a04bf4f13a549bce677cf79b04852e7510782817",
    "b2": "868ab6f13871dcf8c3d9f90ee4519403475b65ef",
    "b3": "32558d12a65f1daa0ebcf4f4053c4285e2c1cbda",
    "b4": "3a3454e900a4b4f11dd60eeb59101a9a1a36b017",
    "b5": "ced04d96c586b6297fd59a7a1e244fc78fdb6531",
}
_RELEASE = "https://github.com/qubvel/segmentation_models.pytorch/releases/download/v0.0.2"


def weights_of(size: str, **facts: Any) -> tuple[PublishedWeights, ...]:
    """The published files of one size, all with the same encoder."""
    facts = {**_ENCODER, "variant": size, "megabytes": _MEGABYTES[size], **facts}
    return (
        on_hub(f"smp-hub/mit_{size}.imagenet", revision=_REVISIONS[size], **facts),
        direct(f"{_RELEASE}/mit_{size}.pth", **facts),
        on_hub(f"nvidia/mit-{size}", "pytorch_model.bin", **facts),
    )


WEIGHTS = tuple(one for size in SIZES for one in weights_of(size))

# For `drop_matching`.
CLASSIFIER = (r"head\.(weight|bias)", "belongs to the ImageNet classifier")


def official_names(ours: str) -> tuple[tuple[str, str], ...]:
    """Rows for `rename_keys`: official names, with or without `backbone.`, to those of the MiT named `ours`."""
    rows: list[tuple[str, str]] = []
    for i in range(4):
        stage = f"{ours}.stages.{i}"
        block, block_ours = rf"(?:backbone\.)?block{i + 1}\.(\d+)\.", rf"{stage}.blocks.\1."
        rows += [
            (rf"(?:backbone\.)?patch_embed{i + 1}\.proj\.(.+)", rf"{stage}.embed.\1"),
            (rf"(?:backbone\.)?patch_embed{i + 1}\.norm\.(.+)", rf"{stage}.embed_norm.\1"),
            (rf"(?:backbone\.)?norm{i + 1}\.(.+)", rf"{stage}.norm.\1"),
            (block + r"norm1\.(.+)", block_ours + r"attention_norm.\2"),
            (block + r"attn\.q\.(.+)", block_ours + r"attention.query.\2"),
            (block + r"attn\.kv\.(.+)", block_ours + r"attention.key_value.\2"),
            (block + r"attn\.sr\.(.+)", block_ours + r"attention.reduce.\2"),
            (block + r"attn\.norm\.(.+)", block_ours + r"attention.reduce_norm.\2"),
            (block + r"attn\.proj\.(.+)", block_ours + r"attention.project.\2"),
            (block + r"norm2\.(.+)", block_ours + r"feed_norm.\2"),
            (block + r"mlp\.fc1\.(.+)", block_ours + r"feed.widen.\2"),
            (block + r"mlp\.dwconv\.dwconv\.(.+)", block_ours + r"feed.mix.\2"),
            (block + r"mlp\.fc2\.(.+)", block_ours + r"feed.narrow.\2"),
        ]
    return tuple(rows)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens (B, H * W, C) as a map (B, C, H, W), without a copy."""
    return tokens.transpose(1, 2).unflatten(2, size)  # type: ignore[no-any-return]


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, H, W) as tokens (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


class ReducedAttention(nn.Module):
    """Attention of all tokens to the map reduced `reduction` times by a strided convolution: (B, H * W, C) -> same shape."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)
        self.reduce: nn.Conv2d | None = None
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.reduce_norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        context = tokens
        if self.reduce is not None:
            context = self.reduce_norm(to_tokens(self.reduce(to_map(tokens, size))))
        query = self.query(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(context).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.project(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MixFeedForward(nn.Module):
    """Linear layer, depth-wise 3x3 convolution (its zero padding encodes positions), GELU, linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _MLP_RATIO * channels
        self.widen = nn.Linear(channels, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        hidden = to_tokens(self.mix(to_map(self.widen(tokens), size)))
        return self.narrow(F.gelu(hidden))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each with pre-norm and residual: (B, H * W, C) -> same shape."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.attention = ReducedAttention(channels, heads, reduction)
        self.feed_norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.feed = MixFeedForward(channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens), size))
        return tokens + self.drop_path(self.feed(self.feed_norm(tokens), size))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Overlapping patch embedding and `len(drop_paths)` blocks: (B, C, H, W) -> (B, C', H/s, W/s), s = 4 (first) or 2."""

    def __init__(
        self, in_channels: int, channels: int, first: bool, heads: int, reduction: int, drop_paths: list[float]
    ) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.embed = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(Block(channels, heads, reduction, rate) for rate in drop_paths)
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        size = (x.shape[2], x.shape[3])
        tokens = self.embed_norm(to_tokens(x))
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(self.norm(tokens), size)


class MiT(nn.Module):
    """Image (B, C, H, W) -> four maps of strides 4, 8, 16, 32 with `widths` channels.

    size: one of `SIZES`. Strides are exact if H and W are multiples of 32.
    """

    def __init__(self, size: str, in_channels: int = 3) -> None:
        super().__init__()
        self.widths, depths = SIZES[size]
        total = sum(depths)
        rates = [_DROP_PATH * i / (total - 1) for i in range(total)]
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(self.widths, depths, strict=True)):
            previous = self.widths[i - 1] if i else in_channels
            self.stages.append(Stage(previous, width, i == 0, _HEADS[i], _REDUCTIONS[i], rates[:depth]))
            del rates[:depth]
        self.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
