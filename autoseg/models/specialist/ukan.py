"""U-KAN: a convolutional U-Net whose deepest levels are Kolmogorov-Arnold layers on tokens."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers.convolution import double_convolution
from autoseg.models.layers.initialisation import init_weights
from autoseg.models.layers.kan import KANLinear
from autoseg.models.layers.mit import to_map, to_tokens

SPEC = ModelSpec(
    name="ukan",
    title="U-KAN",
    family="specialist",
    citation=(
        "Li, Liu, Li, Wang, Liu, Liu, Chen, Yuan: U-KAN Makes Strong Backbone for Medical Image Segmentation and "
        "Generation. AAAI 2025."
    ),
    variants=(Variant("S", 1_848_642), Variant("base", 6_356_706), Variant("L", 25_359_298)),
    default_variant="L",
    divisor=32,
    cam_layer="rise.4",
)

# Channels at strides 8, 16 and 32; the two finer levels have an eighth and a quarter of the first.
_WIDTHS = {"S": (64, 96, 128), "base": (128, 160, 256), "L": (256, 320, 512)}
_KAN_LAYERS = 3

# Official names of block and norm, in forward order.
_STAGES = (("block1", "norm3"), ("block2", "norm4"), ("dblock1", "dnorm3"), ("dblock2", "dnorm4"))


def _stage_rows(index: int, block: str, norm: str) -> tuple[tuple[str, str], ...]:
    ours = f"stages.{index}"
    layers = range(_KAN_LAYERS)
    return (
        (rf"{norm}\.(.+)", rf"{ours}.norm.\1"),
        (rf"{block}\.0\.norm2\.(.+)", rf"{ours}.first_norm.\1"),
        *((rf"{block}\.0\.layer\.fc{i + 1}\.base_weight", f"{ours}.layers.{i}.base") for i in layers),
        *((rf"{block}\.0\.layer\.fc{i + 1}\.spline_weight", f"{ours}.layers.{i}.spline") for i in layers),
        *((rf"{block}\.0\.layer\.fc{i + 1}\.spline_scaler", f"{ours}.layers.{i}.scale") for i in layers),
        *((rf"{block}\.0\.layer\.dwconv_{i + 1}\.dwconv\.(.+)", rf"{ours}.mixes.{i}.0.\1") for i in layers),
        *((rf"{block}\.0\.layer\.dwconv_{i + 1}\.bn\.(.+)", rf"{ours}.mixes.{i}.1.\1") for i in layers),
    )


_OFFICIAL = (
    *((rf"encoder{i + 1}\.conv\.(.+)", rf"encoder.{i}.\1") for i in range(3)),
    *((rf"patch_embed{i + 3}\.proj\.(.+)", rf"embeds.{i}.\1") for i in range(2)),
    *((rf"patch_embed{i + 3}\.norm\.(.+)", rf"embed_norms.{i}.\1") for i in range(2)),
    *(row for i, (block, norm) in enumerate(_STAGES) for row in _stage_rows(i, block, norm)),
    *((rf"decoder{i + 1}\.conv\.(.+)", rf"rise.{i}.\1") for i in range(5)),
    (r"final\.(.+)", r"head.\1"),
)
_DROPPED = ((r".*\.grid", "knots of the splines, computed by the network"),)


class TokenStage(nn.Module):
    """Three KAN layers, each followed by depth-wise convolution, batch norm and ReLU, with residual; then a norm.

    (B, H * W, C) -> (B, C, H, W). No attention: only the convolutions mix pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first_norm = nn.LayerNorm(channels)
        self.layers = nn.ModuleList(KANLinear(channels, channels) for _ in range(_KAN_LAYERS))
        self.mixes = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for _ in range(_KAN_LAYERS)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.first_norm(tokens)
        for layer, mix in zip(self.layers, self.mixes, strict=True):
            x = to_tokens(mix(to_map(layer(x), size)))
        return to_map(self.norm(tokens + x), size)


class UKAN(SegmentationNetwork):
    """U-KAN of Li et al. (2025); any multiple of 32. Skips are added, not concatenated.

    widths: channels at strides 8, 16 and 32.
    """

    divisor = 32
    stem_weights = ("encoder.0.0.weight",)
    head_weights = ("head.weight", "head.bias")

    def __init__(self, widths: tuple[int, int, int], in_channels: int, num_classes: int) -> None:
        super().__init__()
        first = widths[0]
        fine = (first // 8, first // 4, *widths)
        self.encoder = nn.ModuleList(
            double_convolution(in_width, out_width, bias=True) for in_width, out_width in pairwise((in_channels, *fine[:3]))
        )
        self.embeds = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.embed_norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        # Encoder: strides 16 and 32. Decoder: strides 16 and 8.
        self.stages = nn.ModuleList(TokenStage(width) for width in (*widths[1:], widths[1], widths[0]))
        self.rise = nn.ModuleList(
            double_convolution(in_width, out_width, middle=in_width, bias=True)
            for in_width, out_width in pairwise((*reversed(fine), fine[0]))
        )
        self.head = nn.Conv2d(fine[0], num_classes, 1)
        self.embeds.apply(init_weights)
        self.stages.apply(init_weights)

    def segment(self, x: Tensor) -> ModelOutput:
        skips: list[Tensor] = []
        for level in self.encoder:
            x = F.max_pool2d(level(x), 2)
            skips.append(x)
        for embed, norm, stage in zip(self.embeds, self.embed_norms, self.stages, strict=False):
            x = embed(x)
            x = stage(norm(to_tokens(x)), (x.shape[2], x.shape[3]))
            skips.append(x)
        skips.pop()
        for i, step in enumerate(self.rise[:-1]):
            x = F.interpolate(step(x), scale_factor=2, mode="bilinear", align_corners=False) + skips.pop()
            if i < 2:
                x = self.stages[2 + i](to_tokens(x), (x.shape[2], x.shape[3]))
        # The official head follows the last upsampling. The order does not matter, and this one is cheaper.
        return ModelOutput(self.head(self.rise[-1](x)))

    def load_official(self, adapter: StateDictAdapter) -> None:
        drop_matching(adapter, _DROPPED)
        rename_keys(adapter, _OFFICIAL)


def build(
    variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None = None
) -> SegmentationNetwork:
    """U-KAN-`variant`. No options."""
    return UKAN(_WIDTHS[variant], in_channels, num_classes)
