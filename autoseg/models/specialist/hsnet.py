"""HSNet: a PVTv2 encoder, attention on its skips, and a decoder with transformer and convolution branches.

Source: Zhang et al., "HSNet: A hybrid semantic network for polyp segmentation", Computers in Biology and Medicine 2022,
on PVTv2 of Wang et al., "PVT v2: Improved baselines with pyramid vision transformer", Computational Visual Media 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.pvt_v2 import MlpWithDepthwiseConv, PyramidVisionTransformerV2
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.published_weights import direct, on_hub

WIDTHS = (64, 128, 320, 512)
FIXED = "fixed"
_PVT_FILE: dict[str, Any] = {
    "trained_on": "ImageNet-1k classification (encoder)", "licence": "Apache-2.0", "megabytes": 101,
}  # fmt: skip

SPEC = ModelSpec(
    name="hsnet",
    title="HSNet",
    family="specialist",
    citation="Zhang W., Fu C., Zheng Y., Zhang F., Zhao Y., Sham C.-W.: HSNet: A hybrid semantic network for polyp "
    "segmentation. Computers in Biology and Medicine 2022.",
    variants=(
        Variant("pvt_v2_b2", 29_850_685),
        Variant(
            FIXED, 29_258_038,
            note="the decoder's attention map multiplies query and key; the published code multiplies the query with a "
            "reordered view of itself. Without a block that the published code never uses",
        ),
    ),
    default_variant="pvt_v2_b2",
    divisor=32,
    deep_supervision=True,
    weights=(
        direct(
            "https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth",
            **{**_PVT_FILE, "sha256": "80711cd1b37ffba12bec6c7a2a7c54efe2315ed635e6d2055fd51c3e909ede4d"},
        ),
        on_hub("timm/pvt_v2_b2.in1k", **_PVT_FILE),
    ),
    cam_layer="decoder.semantic.2",
)


def build(variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None) -> HSNet:
    """HSNet as published (`pvt_v2_b2`), or with the decoder's key corrected (`fixed`). No options."""
    return HSNet(in_channels, num_classes, fixed=variant == FIXED)


# Official names to ours. Encoder-only files have PVT's names or timm's (the same as ours).
_STAGES = range(4)
_PVT = r"(?:backbone\.)?"
_ENCODER = (
    (_PVT + r"patch_embed1\.(.+)", r"encoder.patch_embed.\1"),
    (_PVT + r"((?:patch_embed|stages)\..+)", r"encoder.\1"),
    *((rf"{_PVT}patch_embed{i + 1}\.(.+)", rf"encoder.stages.{i}.downsample.\1") for i in _STAGES),
    *((rf"{_PVT}block{i + 1}\.(\d+\.mlp\.)dwconv\.(.+)", rf"encoder.stages.{i}.blocks.\1\2") for i in _STAGES),
    *((rf"{_PVT}block{i + 1}\.(.+)", rf"encoder.stages.{i}.blocks.\1") for i in _STAGES),
    *((rf"{_PVT}norm{i + 1}\.(.+)", rf"encoder.stages.{i}.norm.\1") for i in _STAGES),
)
_CLASSIFIER = ((_PVT + r"head\..+", "belongs to the ImageNet classifier"),)
_UNUSED = ((r"decoder\.hb0\..+", "never used by the published network"),)
_HS, _STEP = r"decoder\.hs(\d)\.", r"decoder.semantic.\1."
_TRANSFORMER = (
    (_HS + r"patch_embed\.proj\.(.+)", _STEP + r"transformer.embed.\2"),
    (_HS + r"patch_embed\.norm\.(.+)", _STEP + r"transformer.embed_norm.\2"),
    (_HS + r"block\.attn\.q\.(.+)", _STEP + r"transformer.query.\2"),
    (_HS + r"block\.attn\.kv\.(.+)", _STEP + r"transformer.key_value.\2"),
    (_HS + r"block\.attn\.proj\.(.+)", _STEP + r"transformer.project.\2"),
    (_HS + r"block\.mlp\.dwconv\.(.+)", _STEP + r"transformer.mlp.\2"),
    (_HS + r"block\.(.+)", _STEP + r"transformer.\2"),
    (_HS + r"norm\.(.+)", _STEP + r"transformer.norm.\2"),
)
_BOTTLENECK = tuple(
    row
    for suffix, ours in (("0", "reduce"), ("1", "mix"), ("2", "expand"))
    for row in (
        (rf"{_HS}conv\.conv{suffix}\.(.+)", rf"{_STEP}convolution.{ours}.conv.\2"),
        (rf"{_HS}conv\.bn{suffix}\.(.+)", rf"{_STEP}convolution.{ours}.norm.\2"),
    )
)
_SKIPS = tuple(
    row
    for i, ours in ((0, "unused_skip"), (1, "skips.0"), (2, "skips.1"), (3, "skips.2"))
    for row in (
        (rf"decoder\.hb{i}\.eca\.conv1d\.(.+)", rf"decoder.{ours}.channel_gate.conv.\1"),
        (rf"decoder\.hb{i}\.conv\.conv\.(.+)", rf"decoder.{ours}.local.conv.\1"),
        (rf"decoder\.hb{i}\.conv\.bn\.(.+)", rf"decoder.{ours}.local.norm.\1"),
        (rf"decoder\.hb{i}\.down_c\.conv\.(.+)", rf"decoder.{ours}.spatial_gate.conv.\1"),
        (rf"decoder\.hb{i}\.down_c\.bn\.(.+)", rf"decoder.{ours}.spatial_gate.norm.\1"),
    )
)
_OFFICIAL = (
    *_ENCODER,
    (r"decoder\.transferlayer\.conv\.(.+)", r"decoder.transfer.conv.\1"),
    (r"decoder\.transferlayer\.bn\.(.+)", r"decoder.transfer.norm.\1"),
    *_TRANSFORMER,
    *_BOTTLENECK,
    (_HS + r"conv\.map\.(.+)", _STEP + r"convolution.shortcut.conv.\2"),
    (_HS + r"conv\.bn_map\.(.+)", _STEP + r"convolution.shortcut.norm.\2"),
    (_HS + r"gc\.conv1d\.(.+)", _STEP + r"channel_gate.conv.\2"),
    (_HS + r"down_c\.conv\.(.+)", _STEP + r"spatial_gate.conv.\2"),
    (_HS + r"down_c\.bn\.(.+)", _STEP + r"spatial_gate.norm.\2"),
    *_SKIPS,
    *((rf"out{i + 1}\.(.+)", rf"heads.{i}.\1") for i in _STAGES),
    *((rf"dc{i + 1}\.(.+)", rf"scale_weights.reduce.{i}.\1") for i in _STAGES),
    *((rf"bn_dc{i + 1}\.(.+)", rf"scale_weights.norms.{i}.\1") for i in _STAGES),
    (r"fc1\.(.+)", r"scale_weights.hidden.\1"),
    (r"fc2\.(.+)", r"scale_weights.weigh.\1"),
)


class ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm, without activation."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


class ChannelGate(nn.Module):
    """Efficient channel attention: (B, C, H, W) to a gate (B, C, 1, 1) from the means of neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.conv(x.mean(dim=(2, 3))[:, None])
        return gate.sigmoid()[:, 0, :, None, None]


class SkipAttention(nn.Module):
    """Each half of the channels gates the other: the first per channel, the second per pixel. (B, C, H, W) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.channel_gate = ChannelGate()
        self.local = ConvNorm(half, half, 3)
        self.spatial_gate = ConvNorm(half, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        spatial = self.spatial_gate(second).sigmoid()
        return torch.cat([first * spatial, self.local(second) * self.channel_gate(first)], dim=1)


class Bottleneck(nn.Module):
    """The convolution branch: (B, C, H, W) to (B, D, H, W), a bottleneck of D / 4 channels with a 1x1 shortcut."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.shortcut = ConvNorm(channels, out_channels, 1)
        self.reduce = ConvNorm(channels, inner, 1)
        self.mix = ConvNorm(inner, inner, 3)
        self.expand = ConvNorm(inner, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.mix(F.relu(self.reduce(x))))
        return F.relu(self.shortcut(x) + self.expand(residual))


class TransformerBranch(nn.Module):
    """One attention block on (B, C, H, W). Returns its tokens as a map and query times key, both (B, D, H, W).

    fixed: multiply with the key. The published code multiplies with the query's memory, read in another order.
    """

    def __init__(self, channels: int, width: int, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.embed = nn.Conv2d(channels, width, 3, padding=1)
        self.embed_norm = nn.LayerNorm(width)
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MlpWithDepthwiseConv(width, 4 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedded: Tensor = self.embed(x)
        height, width = embedded.shape[-2:]
        tokens = self.embed_norm(embedded.flatten(2).mT)
        normed = self.norm1(tokens)
        query = self.query(normed)
        key, value = self.key_value(normed).chunk(2, dim=-1)
        # One head: fused attention kernels expect this axis.
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        tokens = tokens + self.project(attended)
        tokens = tokens + self.mlp(self.norm2(tokens), (height, width))
        query_map = query.mT.unflatten(2, (height, width))
        if self.fixed:
            key_map = key.mT.unflatten(2, (height, width))
        else:
            batch, channels = query_map.shape[:2]
            key_map = query_map.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return self.norm(tokens).mT.unflatten(2, (height, width)), query_map * key_map


class HybridSemantic(nn.Module):
    """Transformer branch, gated per channel and pixel, times convolution branch: (B, C, H, W) to (B, D, 2H, 2W)."""

    def __init__(self, channels: int, out_channels: int, fixed: bool) -> None:
        super().__init__()
        self.transformer = TransformerBranch(channels, out_channels, fixed)
        self.convolution = Bottleneck(channels, out_channels)
        self.channel_gate = ChannelGate()
        self.spatial_gate = ConvNorm(out_channels, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        attended, product = self.transformer(x)
        attended = attended * self.channel_gate(product) * self.spatial_gate(product).sigmoid()
        return F.interpolate(attended * self.convolution(x), scale_factor=2.0, mode="bilinear", align_corners=True)


class Decoder(nn.Module):
    """Four encoder maps, from fine to coarse, to four maps of the same shapes."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.transfer = ConvNorm(WIDTHS[3], WIDTHS[3], 1)
        self.semantic = nn.ModuleList(
            HybridSemantic(WIDTHS[level + 1], WIDTHS[level], fixed) for level in reversed(range(3))
        )
        self.skips = nn.ModuleList(SkipAttention(WIDTHS[level]) for level in reversed(range(3)))
        if not fixed:
            self.unused_skip = SkipAttention(WIDTHS[3])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [self.transfer(features[3])]
        for semantic, skip, feature in zip(self.semantic, self.skips, reversed(features[:3]), strict=True):
            maps.append(semantic(maps[-1]) * skip(feature))
        return maps[::-1]


class ScaleWeights(nn.Module):
    """Four maps to weights (B, 4) in 0..1: one for each scale's prediction of this image."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in WIDTHS)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in WIDTHS)
        self.hidden = nn.Linear(width, width)
        self.weigh = nn.Linear(width, len(WIDTHS))

    def forward(self, maps: list[Tensor]) -> Tensor:
        pooled = [n(r(m)).mean(dim=(2, 3)) for m, r, n in zip(maps, self.reduce, self.norms, strict=True)]
        weights: Tensor = self.weigh(F.relu(self.hidden(torch.stack(pooled).sum(dim=0))))
        return weights.sigmoid()


class HSNet(SegmentationNetwork):
    """The network. Logits are the sum of four predictions, each with a predicted weight for its scale.

    In training the four predictions are auxiliary outputs with the same weight as the sum, as published.
    """

    divisor = 32

    def __init__(self, in_channels: int = 3, num_classes: int = 2, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed
        self.encoder = PyramidVisionTransformerV2(
            in_chans=in_channels, num_classes=0, depths=(3, 4, 6, 3), embed_dims=WIDTHS, num_heads=(1, 2, 5, 8),
            drop_path_rate=0.1,
        )
        self.decoder = Decoder(fixed)
        self.scale_weights = ScaleWeights()
        self.heads = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in WIDTHS)
        self.stem_weights = ("encoder.patch_embed.proj.weight",)
        self.head_weights = tuple(f"heads.{name}" for name, _ in self.heads.named_parameters())
        self.unused_parameters = tuple(name for name, _ in self.named_parameters() if "unused_skip" in name)

    def predictions(self, x: Tensor) -> list[Tensor]:
        """The four predictions (B, K, H, W), from fine to coarse, at the size of `x`."""
        maps = self.decoder(self.encoder.forward_intermediates(x, intermediates_only=True))
        weights = self.scale_weights(maps)[..., None, None, None].unbind(dim=1)
        return [
            F.interpolate(head(scale) * weight, x.shape[-2:], mode="bilinear", align_corners=False)
            for head, scale, weight in zip(self.heads, maps, weights, strict=True)
        ]

    def segment(self, x: Tensor) -> ModelOutput:
        predictions = self.predictions(x)
        logits = torch.stack(predictions).sum(dim=0)
        return ModelOutput(logits, tuple((p, 1.0) for p in predictions) if self.training else ())

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models, and encoders of PVT and timm. A published head gives one logit z per pixel: (0, z) for two classes."""
        drop_matching(adapter, _CLASSIFIER if not self.fixed else (*_CLASSIFIER, *_UNUSED))
        rename_keys(adapter, _OFFICIAL)
        for name in self.head_weights:
            if name in adapter.assigned and len(adapter.assigned[name]) == 1 and len(self.get_parameter(name)) == 2:
                adapter.assign(name, *adapter.sources[name], transform=_background_and)


def _background_and(foreground: Tensor) -> Tensor:
    """Weight or bias of a head of one logit as that of two: zero for the background."""
    return torch.cat([torch.zeros_like(foreground), foreground])
