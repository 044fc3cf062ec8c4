"""Swin Transformer for images of any size: attention within windows that are shifted from block to block.

Liu et al.: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows. ICCV 2021.

timm's Swin fills a map up to whole windows after shifting it, the detectors and segmenters built on Swin before: other
pixels then share a window, wherever a map is no multiple of the window. Hence one of our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from autoseg.models.layers.initialisation import start_plainly

# Channels of the first stage (doubling from each to the next), heads and blocks of the four stages.
SIZES = {
    "swin-t": (96, (3, 6, 12, 24), (2, 2, 6, 2)),
    "swin-s": (96, (3, 6, 12, 24), (2, 2, 18, 2)),
}
_WINDOW = 7
_SHIFT = _WINDOW // 2
_MLP_RATIO = 4
_PATCH = 4
# Added to the attention between pixels that only the cyclic shift made neighbours.
_APART = -100.0


def official_names(ours: str) -> tuple[tuple[str, str], ...]:
    """Rows for `rename_keys`: official names, alone or under `backbone.`, to those of a Swin that is called `ours`."""
    block, here = r"(?:backbone\.)?layers\.(\d)\.blocks\.(\d+)", rf"{ours}.stages.\1.blocks.\2"
    return (
        (r"(?:backbone\.)?patch_embed\.proj\.(.+)", rf"{ours}.embed.\1"),
        (r"(?:backbone\.)?patch_embed\.norm\.(.+)", rf"{ours}.embed_norm.\1"),
        (block + r"\.norm1\.(.+)", here + r".attention_norm.\3"),
        (block + r"\.attn\.relative_position_bias_table", here + ".attention.bias"),
        (block + r"\.attn\.qkv\.(.+)", here + r".attention.query_key_value.\3"),
        (block + r"\.attn\.proj\.(.+)", here + r".attention.project.\3"),
        (block + r"\.norm2\.(.+)", here + r".feed_norm.\3"),
        (block + r"\.mlp\.fc1\.(.+)", here + r".widen.\3"),
        (block + r"\.mlp\.fc2\.(.+)", here + r".narrow.\3"),
        (r"(?:backbone\.)?layers\.(\d)\.downsample\.(norm|reduction)\.(.+)", rf"{ours}.stages.\1.merge.\2.\3"),
        (r"(?:backbone\.)?norm(\d)\.(.+)", rf"{ours}.norms.\1.\2"),
    )


# Rows for `drop_matching`: what official files hold besides.
OFFICIAL_EXTRAS = (
    (r".*\.(relative_position_index|attn_mask)", "computed here"),
    (r"norm\.(weight|bias)|head\.(weight|bias)", "belongs to the ImageNet classifier"),
)


class WindowAttention(nn.Module):
    """Attention among the pixels of each window: (B, windows, 49, C) is kept. apart: (windows, 49, 49), added, or None."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * _WINDOW - 1) ** 2, heads), std=0.02))
        side = torch.arange(_WINDOW)
        down, across = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
        offset = (down[:, None] - down + _WINDOW - 1) * (2 * _WINDOW - 1) + across[:, None] - across + _WINDOW - 1
        self.register_buffer("offset", offset.flatten(), persistent=False)

    def forward(self, x: Tensor, apart: Tensor | None) -> Tensor:
        query, key, value = self.query_key_value(x).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self.bias[self.offset].unflatten(0, (_WINDOW**2, _WINDOW**2)).permute(2, 0, 1)  # type: ignore[index]
        if apart is not None:
            bias = bias + apart[:, None]
        weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(3, 4) + bias).softmax(dim=-1)
        return self.project((weights @ value).transpose(2, 3).flatten(3))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Window attention and a feed-forward, each behind a norm and beside a shortcut: (B, H, W, C) is kept."""

    def __init__(self, channels: int, heads: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.shift = _SHIFT if shifted else 0
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads)
        self.feed_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, _MLP_RATIO * channels)
        self.narrow = nn.Linear(_MLP_RATIO * channels, channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, apart: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.attention_norm(x), apart))
        return x + self.drop_path(self.narrow(F.gelu(self.widen(self.feed_norm(x)))))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, apart: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % _WINDOW, 0, -height % _WINDOW))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        rows, columns = x.shape[1] // _WINDOW, x.shape[2] // _WINDOW
        windows = x.unflatten(2, (columns, _WINDOW)).unflatten(1, (rows, _WINDOW)).transpose(2, 3)
        windows = self.attention(windows.flatten(3, 4).flatten(1, 2), apart if self.shift else None)
        windows = windows.unflatten(2, (_WINDOW, _WINDOW)).unflatten(1, (rows, columns)).transpose(2, 3)
        x = windows.flatten(3, 4).flatten(1, 2)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Four neighbouring pixels into one of twice the channels: (B, H, W, C) -> (B, H/2, W/2, 2C)."""

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
    """Blocks at one stride: (B, H, W, C) -> the stage's map (same shape) and the next stage's input, half as large."""

    def __init__(self, channels: int, heads: int, drop_paths: list[float], last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, heads, i % 2 == 1, rate) for i, rate in enumerate(drop_paths))
        self.merge = nn.Identity() if last else PatchMerging(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        apart = _kept_apart(x.shape[1], x.shape[2], x.device)
        for block in self.blocks:
            x = block(x, apart)
        return x, self.merge(x)


class Swin(nn.Module):
    """Image (B, C, H, W), H and W multiples of 4 -> four normed maps of strides 4 to 32 with `widths` channels.

    size: one of `SIZES`. drop_path: of the last block, rising to it evenly from zero.
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
        self.stages.apply(start_plainly)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.embed_norm(self.embed(x).permute(0, 2, 3, 1)), []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            out, x = stage(x)
            maps.append(norm(out).permute(0, 3, 1, 2))
        return maps


def _kept_apart(height: int, width: int, device: torch.device) -> Tensor:
    """(windows, 49, 49): what keeps apart pixels of a shifted window that come from different sides of the map."""
    regions = []
    for side in (height, width):
        whole = side + -side % _WINDOW
        place = torch.arange(whole, device=device)
        regions.append(((place >= whole - _WINDOW).int() + (place >= whole - _SHIFT).int()).unflatten(0, (-1, _WINDOW)))
    region = 3 * regions[0][:, None, :, None] + regions[1][None, :, None, :]
    region = region.flatten(2, 3).flatten(0, 1)
    return (region[:, :, None] != region[:, None, :]).float() * _APART  # type: ignore[no-any-return]
