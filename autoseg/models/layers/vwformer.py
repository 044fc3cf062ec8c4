"""VWFormer: a decoder whose windows attend to contexts of several sizes at the same cost.

Yan et al.: Multi-Scale Representations by Varying Window Attention for Semantic Segmentation. ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, SegmentationNetwork, StateDictAdapter
from autoseg.models.key_mapping import rename_keys
from autoseg.models.layers.convnext import ConvNeXt
from autoseg.models.layers.fusion import MapFusion
from autoseg.models.layers.mit import MiT
from autoseg.models.layers.upernet import ConvNormReLU, classifier

CITATION = (
    "Yan H., Wu M., Zhang C.: Multi-Scale Representations by Varying Window Attention for Semantic Segmentation. "
    "ICLR 2024."
)
# The decoder works at stride 8 on a grid of 8 x 8 windows.
DIVISOR = 64
_GRID = 8
_RATIOS = (2, 4, 8)
_CHANNELS = 512
_DETAIL_CHANNELS = 48

_IN = r"decode_head\."
_OFFICIAL = (
    # Maps are concatenated with the deepest first.
    *((rf"{_IN}linear_c{4 - i}\.proj\.(.+)", rf"head.join.projections.{i}.\1") for i in range(3)),
    *((rf"{_IN}linear_c{4 - i}\.conv\.(.+)", rf"head.project.{i}.conv.\1") for i in range(3)),
    *((rf"{_IN}linear_c{4 - i}\.bn\.(.+)", rf"head.project.{i}.norm.\1") for i in range(3)),
    (rf"{_IN}linear_c1\.proj\.(.+)", r"head.enhance.projections.1.\1"),
    (rf"{_IN}linear_c1\.conv\.(.+)", r"head.detail.conv.\1"),
    (rf"{_IN}linear_c1\.bn\.(.+)", r"head.detail.norm.\1"),
    *(
        row
        for official, ours in (("linear_fuse", "join"), ("cat", "gather"), ("low_level_fuse", "enhance"))
        for row in (
            (rf"{_IN}{official}\.conv\.(.+)", rf"head.{ours}.mix.\1"),
            (rf"{_IN}{official}\.bn\.(.+)", rf"head.{ours}.norm.\1"),
        )
    ),
    (rf"{_IN}short_path\.conv\.(.+)", r"head.near.conv.\1"),
    (rf"{_IN}short_path\.bn\.(.+)", r"head.near.norm.\1"),
    (rf"{_IN}image_pool\.1\.conv\.(.+)", r"head.pool.1.conv.\1"),
    (rf"{_IN}image_pool\.1\.bn\.(.+)", r"head.pool.1.norm.\1"),
    (rf"{_IN}ds\.(\d)\.conv\.(.+)", r"head.windows.\1.embed.1.\2"),
    (rf"{_IN}ds\.(\d)\.bn\.(.+)", r"head.windows.\1.embed.2.\2"),
    (rf"{_IN}attn\.(\d)\.conv_out\.conv\.(.+)", r"head.windows.\1.leave.0.\2"),
    (rf"{_IN}attn\.(\d)\.conv_out\.bn\.(.+)", r"head.windows.\1.leave.1.\2"),
    (rf"{_IN}attn\.(\d)\.out_proj\.bias", r"head.windows.\1.leave.0.bias"),
    (rf"{_IN}conv_seg\.(.+)", r"head.classify.\1"),
)


def copy_shift_pad(x: Tensor, dim: int, ratio: int, window: int) -> Tensor:
    """`x` padded along `dim`, so that a context `ratio` times as long as a `window` fits around each window.

    The padding copies columns from further inside the map, so no window attends to zeros. An odd window gets half a column
    too much, as published.
    """
    start, stop = (ratio + 1) * window // 2, ratio * window
    low = x.narrow(dim, start, stop - start)
    high = x.narrow(dim, x.shape[dim] - stop, stop - start)
    return torch.cat([low, x, high], dim=dim)


class VaryingWindowAttention(nn.Module):
    """Each of 8 x 8 windows attends to a context around it, `ratio` times as wide and high: (B, C, h, w) -> same shape.

    The context has the same cost as the window: an overlapping convolution reduces the channels to 1 / ratio^2, then
    pixels are folded into channels until the context has as many tokens as the window. h and w: multiples of 8.

    shortcut: add the input. normed: batch norm after the last layer, which then has no bias.
    """

    def __init__(self, channels: int, ratio: int, heads: int, shortcut: bool, normed: bool) -> None:
        super().__init__()
        self.ratio, self.heads, self.shortcut = ratio, heads, shortcut
        reduced, before, after = channels // ratio**2, ratio // 2 - 1, ratio // 2
        embed_conv = nn.Conv2d(channels, reduced, ratio, bias=False)
        self.embed = nn.Sequential(
            nn.ZeroPad2d((before, after, before, after)), embed_conv, nn.BatchNorm2d(reduced), nn.ReLU(inplace=True)
        )
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        out_conv = nn.Conv2d(channels, channels, 1, bias=not normed)
        self.leave = nn.Sequential(out_conv, *([nn.BatchNorm2d(channels)] if normed else []))
        nn.init.kaiming_normal_(embed_conv.weight, mode="fan_out", nonlinearity="relu")
        self._initialise(out_conv)

    def _initialise(self, out_conv: nn.Conv2d) -> None:
        width = self.query.in_features
        nn.init.zeros_(self.query.bias)
        nn.init.zeros_(self.key_value.bias)
        if out_conv.bias is None:
            nn.init.normal_(self.query.weight, std=0.01)
            nn.init.normal_(self.key_value.weight, std=math.sqrt(2 / width))
            nn.init.kaiming_normal_(out_conv.weight, mode="fan_out", nonlinearity="relu")
            # Zero-initialised norm: the branch initially adds nothing.
            for norm in self.leave[1:]:
                nn.init.zeros_(norm.get_parameter("weight"))
        else:
            bound = math.sqrt(6 / (4 * width))
            nn.init.uniform_(self.query.weight, -bound, bound)
            nn.init.uniform_(self.key_value.weight, -bound, bound)
            nn.init.zeros_(out_conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        ph, pw = height // _GRID, width // _GRID
        query = self.query(self._windows(x, ph, pw)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        context = self.key_value(self._contexts(self.embed(x), ph, pw))
        key, value = context.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        merged = attended.view(batch, _GRID, _GRID, ph, pw, -1).permute(0, 5, 1, 3, 2, 4)
        result: Tensor = self.leave(merged.reshape(batch, -1, height, width))
        return result + x if self.shortcut else result

    @staticmethod
    def _windows(x: Tensor, ph: int, pw: int) -> Tensor:
        """(B, C, h, w) -> tokens of each window (B * 64, ph * pw, C)."""
        grid = x.unflatten(3, (_GRID, pw)).unflatten(2, (_GRID, ph))
        return grid.permute(0, 2, 4, 3, 5, 1).reshape(-1, ph * pw, x.shape[1])  # type: ignore[no-any-return]

    def _contexts(self, x: Tensor, ph: int, pw: int) -> Tensor:
        """(B, C / ratio^2, h, w) -> tokens of each window's context (B * 64, ph * pw, C)."""
        ratio = self.ratio
        x = copy_shift_pad(copy_shift_pad(x, 3, ratio, pw), 2, ratio, ph)
        contexts = x.unfold(2, ratio * ph, ph)[:, :, :_GRID].unfold(3, ratio * pw, pw)[:, :, :, :_GRID]
        folded = contexts.unflatten(5, (pw, ratio)).unflatten(4, (ph, ratio))
        tokens: Tensor = folded.permute(0, 2, 3, 4, 6, 5, 7, 1).reshape(-1, ph * pw, ratio**2 * x.shape[1])
        return tokens


class VWHead(nn.Module):
    """Four maps of strides 4 to 32 -> logits (B, K, H/4, W/4); H and W are multiples of 64.

    The three deeper maps are fused at stride 8. The result goes through a 1x1 convolution, global pooling and varying
    windows; these views are fused and combined with the finest map. city: the head published for Cityscapes, which
    projects with norm and activation and has no global pooling.
    """

    def __init__(
        self, widths: Sequence[int], num_classes: int, channels: int, heads: int, shortcut: bool, city: bool
    ) -> None:
        super().__init__()
        finest, *deep = widths[0], *widths[:0:-1]
        if city:
            self.project = nn.ModuleList(ConvNormReLU(width, channels, 1) for width in deep)
            self.join = MapFusion([channels] * 3, [None] * 3, channels, mode="nearest")
            self.detail: nn.Module = ConvNormReLU(finest, _DETAIL_CHANNELS, 1)
            self.enhance = MapFusion([channels, _DETAIL_CHANNELS], [None, None], channels)
        else:
            self.project = nn.ModuleList(nn.Identity() for _ in deep)
            self.join = MapFusion(deep, [channels] * 3, channels)
            self.detail = nn.Identity()
            self.enhance = MapFusion([channels, finest], [None, _DETAIL_CHANNELS], channels)
        self.near = ConvNormReLU(channels, channels, 1)
        self.pool = None if city else nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormReLU(channels, channels, 1))
        self.windows = nn.ModuleList(
            VaryingWindowAttention(channels, ratio, heads, shortcut, normed=not city) for ratio in _RATIOS
        )
        views = 1 + (self.pool is not None) + len(_RATIOS)
        self.gather = MapFusion([channels] * views, [None] * views, channels)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        finest, size = maps[0], maps[1].shape[-2:]
        projected = [layer(x) for layer, x in zip(self.project, maps[:0:-1], strict=True)]
        fused_deep = self.join(projected, size)
        views = [self.near(fused_deep)]
        if self.pool is not None:
            views.append(self.pool(fused_deep))
        views += [attend(fused_deep) for attend in self.windows]
        fused = self.gather(views, size)
        enhanced = self.enhance([fused, self.detail(finest)], finest.shape[-2:])
        return self.classify(self.dropout(enhanced))  # type: ignore[no-any-return]


class VWFormer(SegmentationNetwork):
    """An encoder with the VW head. Subclasses load the encoder's official tensors."""

    divisor = DIVISOR
    head_weights = ("head.classify.weight", "head.classify.bias")

    def __init__(
        self, encoder: MiT | ConvNeXt, num_classes: int, heads: int = 1, shortcut: bool = True, city: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = VWHead(encoder.widths, num_classes, _CHANNELS, heads, shortcut, city)

    def segment(self, x: Tensor) -> ModelOutput:
        return ModelOutput(self.head(self.encoder(x)))

    def load_official(self, adapter: StateDictAdapter) -> None:
        """The head, from whole models of the official code."""
        rename_keys(adapter, _OFFICIAL)
        for j in range(len(_RATIOS)):
            _load_attention(adapter, f"decode_head.attn.{j}.", f"head.windows.{j}.")


def _load_attention(adapter: StateDictAdapter, official: str, ours: str) -> None:
    """Query, key and value layers: 1x1 convolutions in the ADE20K files, stacked in the Cityscapes files."""
    remaining = set(adapter.remaining)
    for kind in ("weight", "bias"):
        theta, phi, g = (f"{official}{name}.conv.{kind}" for name in ("theta", "phi", "g"))
        if {theta, phi, g} <= remaining:
            adapter.assign(f"{ours}query.{kind}", theta, transform=_flat)
            adapter.assign(f"{ours}key_value.{kind}", phi, g, transform=lambda *tensors: torch.cat([_flat(x) for x in tensors]))
        stacked = f"{official}in_proj_{kind}"
        if stacked in remaining:
            adapter.assign(f"{ours}query.{kind}", stacked, transform=lambda x: x.chunk(3)[0])
            adapter.assign(f"{ours}key_value.{kind}", stacked, transform=lambda x: torch.cat(x.chunk(3)[1:]))
    if f"{official}out_proj.weight" in remaining:
        adapter.assign(f"{ours}leave.0.weight", f"{official}out_proj.weight", transform=lambda x: x[:, :, None, None])


def _flat(tensor: Tensor) -> Tensor:
    """The weight of a 1x1 convolution as that of a linear layer. A bias is unchanged."""
    return tensor.flatten(1) if tensor.ndim > 1 else tensor
