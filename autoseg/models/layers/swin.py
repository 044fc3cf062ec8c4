"""Swin Transformer for images of any size: attention within windows, shifted in every second block.

Liu et al.: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows. ICCV 2021.

timm's Swin is not used: it pads a map to whole windows after the shift, published segmenters pad before it. So its windows
contain other pixels if the map's size is not a multiple of the window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from autoseg.models.layers.initialisation import init_weights
from autoseg.models.published_weights import PublishedWeights, direct, on_hub

# Channels of the first stage (doubling from each to the next), heads and blocks of the four stages.
SIZES = {
    "swin-t": (96, (3, 6, 12, 24), (2, 2, 6, 2)),
    "swin-s": (96, (3, 6, 12, 24), (2, 2, 18, 2)),
}
_WINDOW = 7
_SHIFT = _WINDOW // 2
_MLP_RATIO = 4
_PATCH = 4
# Added to the attention between pixels that are in one window only because of the cyclic shift.
_MASKED = -100.0


_FILES = {"swin-t": ("tiny", "swin_t-704ceda3", 114), "swin-s": ("small", "swin_s-5e29d889", 199)}
_STORAGE = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
_KNOWN: dict[str, dict[str, Any]] = {
    "tiny": {"sha256": "9f71c168d837d1b99dd1dc29e14990a7a9e8bdc5f673d46b04fe36fe15590ad3", "size": 114_342_173},
}


def weights_of(size: str, **facts: Any) -> tuple[PublishedWeights, ...]:
    """The published files of one size: the authors', timm's copy of it, torchvision's own training."""
    word, torchvision, megabytes = _FILES[size]
    name, facts = f"swin_{word}_patch4_window7_224", {"megabytes": megabytes, **facts}
    return (
        direct(f"{_STORAGE}/{name}.pth", licence="MIT", **_KNOWN.get(word, {}), **facts),
        on_hub(f"timm/{name}.ms_in1k", licence="MIT", **facts),
        direct(f"https://download.pytorch.org/models/{torchvision}.pth", licence="BSD-3-Clause", **facts),
    )


def official_names(ours: str) -> tuple[tuple[str, str], ...]:
    """Rows for `rename_keys`: official names, with or without `backbone.`, to those of the Swin named `ours`."""
    block, block_ours = r"(?:backbone\.)?layers\.(\d)\.blocks\.(\d+)", rf"{ours}.stages.\1.blocks.\2"
    return (
        (r"(?:backbone\.)?patch_embed\.proj\.(.+)", rf"{ours}.embed.\1"),
        (r"(?:backbone\.)?patch_embed\.norm\.(.+)", rf"{ours}.embed_norm.\1"),
        (block + r"\.norm1\.(.+)", block_ours + r".attention_norm.\3"),
        (block + r"\.attn\.relative_position_bias_table", block_ours + ".attention.bias"),
        (block + r"\.attn\.qkv\.(.+)", block_ours + r".attention.query_key_value.\3"),
        (block + r"\.attn\.proj\.(.+)", block_ours + r".attention.project.\3"),
        (block + r"\.norm2\.(.+)", block_ours + r".feed_norm.\3"),
        (block + r"\.mlp\.fc1\.(.+)", block_ours + r".widen.\3"),
        (block + r"\.mlp\.fc2\.(.+)", block_ours + r".narrow.\3"),
        (r"(?:backbone\.)?layers\.(\d)\.downsample\.(norm|reduction)\.(.+)", rf"{ours}.stages.\1.merge.\2.\3"),
        (r"(?:backbone\.)?norm(\d)\.(.+)", rf"{ours}.norms.\1.\2"),
    )


def to_official(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of timm's and torchvision's Swin under the official names. Other names stay as they are."""
    if any(name.startswith("layers.3.downsample.") for name in tensors):
        # timm counts each downsampling with the stage after it.
        shifted = {re.sub(r"^layers\.(\d)\.downsample", _stage_before, name): one for name, one in tensors.items()}
        return {name.replace("head.fc.", "head."): one for name, one in shifted.items()}
    if "features.0.0.weight" in tensors and "features.1.0.attn.qkv.weight" in tensors:
        return {_name_from_torchvision(name): one for name, one in tensors.items()}
    return tensors


def _stage_before(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample"


def _name_from_torchvision(name: str) -> str:
    """Features 1, 3, 5, 7 are the stages' blocks, 2, 4, 6 what lies between two stages."""
    match = re.fullmatch(r"features\.(\d)\.(.+)", name)
    if match is None:
        return name
    number, rest = int(match[1]), match[2]
    if number == 0:
        return re.sub(r"^(\d)", lambda part: {"0": "patch_embed.proj", "2": "patch_embed.norm"}.get(part[0], part[0]), rest)
    if number % 2 == 0:
        return f"layers.{number // 2 - 1}.downsample.{rest}"
    return f"layers.{number // 2}.blocks.{rest.replace('.mlp.0.', '.mlp.fc1.').replace('.mlp.3.', '.mlp.fc2.')}"


# Rows for `drop_matching`: other tensors of official files.
OFFICIAL_EXTRAS = (
    (r".*\.(relative_position_index|attn_mask)", "computed by the network"),
    (r"norm\.(weight|bias)|head\.(weight|bias)", "belongs to the ImageNet classifier"),
)


class WindowAttention(nn.Module):
    """Attention within each window: (B, windows, 49, C) -> same shape. attn_mask: (windows, 49, 49), added to the scores."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * _WINDOW - 1) ** 2, heads), std=0.02))
        side = torch.arange(_WINDOW)
        row, column = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
        offset = (row[:, None] - row + _WINDOW - 1) * (2 * _WINDOW - 1) + column[:, None] - column + _WINDOW - 1
        self.register_buffer("offset", offset.flatten(), persistent=False)

    def forward(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        query, key, value = self.query_key_value(x).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self.bias[self.offset].unflatten(0, (_WINDOW**2, _WINDOW**2)).permute(2, 0, 1)  # type: ignore[index]
        if attn_mask is not None:
            bias = bias + attn_mask[:, None]
        weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(3, 4) + bias).softmax(dim=-1)
        return self.project((weights @ value).transpose(2, 3).flatten(3))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Window attention and a feed-forward, each with pre-norm and residual: (B, H, W, C) -> same shape."""

    def __init__(self, channels: int, heads: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.shift = _SHIFT if shifted else 0
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads)
        self.feed_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, _MLP_RATIO * channels)
        self.narrow = nn.Linear(_MLP_RATIO * channels, channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.attention_norm(x), attn_mask))
        return x + self.drop_path(self.narrow(F.gelu(self.widen(self.feed_norm(x)))))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % _WINDOW, 0, -height % _WINDOW))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        rows, columns = x.shape[1] // _WINDOW, x.shape[2] // _WINDOW
        windows = x.unflatten(2, (columns, _WINDOW)).unflatten(1, (rows, _WINDOW)).transpose(2, 3)
        windows = self.attention(windows.flatten(3, 4).flatten(1, 2), attn_mask if self.shift else None)
        windows = windows.unflatten(2, (_WINDOW, _WINDOW)).unflatten(1, (rows, columns)).transpose(2, 3)
        x = windows.flatten(3, 4).flatten(1, 2)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Merges 2x2 pixels into one with twice the channels: (B, H, W, C) -> (B, H/2, W/2, 2C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Columns are the slow index.
        corners = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
        return self.reduction(self.norm(torch.cat(corners, dim=3)))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks at one stride: (B, H, W, C) -> the stage's map (same shape) and the next stage's input (half the size)."""

    def __init__(self, channels: int, heads: int, drop_paths: list[float], last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, heads, i % 2 == 1, rate) for i, rate in enumerate(drop_paths))
        self.merge = nn.Identity() if last else PatchMerging(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attn_mask = _shift_mask(x.shape[1], x.shape[2], x.device)
        for block in self.blocks:
            x = block(x, attn_mask)
        return x, self.merge(x)


class Swin(nn.Module):
    """Image (B, C, H, W), H and W multiples of 4 -> four normalised maps of strides 4 to 32 with `widths` channels.

    size: one of `SIZES`. drop_path: rate of the last block; rates increase linearly from zero.
    """

    def __init__(self, size: str, in_channels: int = 3, drop_path: float = 0.3) -> None:
        super().__init__()
        channels, heads, depths = SIZES[size]
        self.widths = [channels * 2**i for i in range(4)]
        self.embed = nn.Conv2d(in_channels, channels, _PATCH, stride=_PATCH)
        self.embed_norm = nn.LayerNorm(channels)
        rates = [drop_path * i / (sum(depths) - 1) for i in range(sum(depths))]
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(self.widths, depths, strict=True)):
            self.stages.append(Stage(width, heads[i], rates[:depth], last=i == 3))
            del rates[:depth]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths)
        self.stages.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.embed_norm(self.embed(x).permute(0, 2, 3, 1)), []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            out, x = stage(x)
            maps.append(norm(out).permute(0, 3, 1, 2))
        return maps


def _shift_mask(height: int, width: int, device: torch.device) -> Tensor:
    """(windows, 49, 49): masks pairs of pixels in a shifted window that come from opposite sides of the map."""
    regions = []
    for side in (height, width):
        padded = side + -side % _WINDOW
        index = torch.arange(padded, device=device)
        regions.append(((index >= padded - _WINDOW).int() + (index >= padded - _SHIFT).int()).unflatten(0, (-1, _WINDOW)))
    region = 3 * regions[0][:, None, :, None] + regions[1][None, :, None, :]
    region = region.flatten(2, 3).flatten(0, 1)
    return (region[:, :, None] != region[:, None, :]).float() * _MASKED  # type: ignore[no-any-return]
