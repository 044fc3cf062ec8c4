"""HiFormer: a ResNet branch and a Swin Transformer branch; their finest and coarsest levels are fused and decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torchvision
from timm.models.swin_transformer import SwinTransformerStage
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.base import (
    ModelOutput,
    ModelSpec,
    SegmentationNetwork,
    StateDictAdapter,
    Variant,
)
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers import resnet_weights, swin
from autoseg.models.layers.initialisation import init_weights

_SWIN_BRANCH = {"part": "Swin branch", "trained_on": "ImageNet-1k classification (Swin branch)"}
_RESNET_BRANCH = {"part": "ResNet branch", "trained_on": "ImageNet-1k classification (ResNet branch)"}
_RESNETS = {"S": "resnet34", "B": "resnet50", "L": "resnet34", "B-fixed": "resnet50"}

SPEC = ModelSpec(
    name="hiformer",
    title="HiFormer",
    family="specialist",
    citation=(
        "Heidari, Kazerouni, Soltany, Azad, Aghdam, Cohen-Adad, Merhof: HiFormer: Hierarchical Multi-scale "
        "Representations Using Transformers for Medical Image Segmentation. WACV 2023."
    ),
    variants=(
        Variant("S", 23_253_340),
        Variant("B", 25_511_100),
        Variant("L", 29_518_204),
        Variant("B-fixed", 25_511_100, note="the fusion module affects the output, as the paper describes"),
    ),
    default_variant="B",
    fixed_size=224,
    weights=(
        *swin.weights_of("swin-t", **_SWIN_BRANCH),
        *(
            one
            for variant, name in _RESNETS.items()
            for one in resnet_weights.weights_of(name, variant=variant, **_RESNET_BRANCH)
        ),
    ),
    cam_layer="predict.0",
)


@dataclass(frozen=True, kw_only=True)
class _Size:
    """resnet: the convolutional branch; channels: of its three levels. Other fields: the fusion module, finest level first."""

    resnet: str
    channels: tuple[int, int, int]
    blocks: tuple[int, int]
    heads: tuple[int, int]
    mlp_ratio: float
    fused: bool = False


_SIZES = {
    "S": _Size(resnet="resnet34", channels=(64, 128, 256), blocks=(1, 1), heads=(3, 3), mlp_ratio=1.0),
    "B": _Size(resnet="resnet50", channels=(256, 512, 1024), blocks=(1, 2), heads=(6, 12), mlp_ratio=2.0),
    "L": _Size(resnet="resnet34", channels=(64, 128, 256), blocks=(1, 4), heads=(6, 6), mlp_ratio=4.0),
    "B-fixed": _Size(resnet="resnet50", channels=(256, 512, 1024), blocks=(1, 2), heads=(6, 12), mlp_ratio=2.0, fused=True),
}
_SIDE = 224
# The Swin branch: Swin-T without patch embedding and last stage.
_WIDTHS, _DEPTHS, _HEADS, _WINDOW = (96, 192, 384), (2, 2, 6), (3, 6, 12), 7
_DROP_PATH = 0.1

_PYRAMID = r"All2Cross\.pyramid\."
_FUSION = r"All2Cross\.blocks\.0\."
_OFFICIAL = (
    (_PYRAMID + r"resnet_layers\.([01])\.(.+)", r"stem.\1.\2"),
    *((rf"{_PYRAMID}resnet_layers\.{level + 4}\.(.+)", rf"cnn.{level}.\1") for level in range(3)),
    *((rf"{_PYRAMID}p{level + 1}_ch\.(.+)", rf"lateral.{level}.\1") for level in range(3)),
    *((rf"{_PYRAMID}p{level}_pm\.(.+)", rf"swin.{level}.downsample.\1") for level in (1, 2)),
    (_PYRAMID + r"swin_transformer\.layers\.([0-2])\.blocks\.(.+)", r"swin.\1.blocks.\2"),
    *((rf"{_PYRAMID}norm_{level + 1}\.(.+)", rf"fusion.class_norms.{level}.\1") for level in range(2)),
    (r"All2Cross\.pos_embed\.([01])", r"fusion.positions.\1"),
    (_FUSION + r"blocks\.(.+)", r"fusion.encoders.\1"),
    (_FUSION + r"projs\.(.+)", r"fusion.leave.\1"),
    (_FUSION + r"fusion\.([01])\.norm1\.(.+)", r"fusion.cross.\1.norm.\2"),
    (_FUSION + r"fusion\.([01])\.attn\.wq\.(.+)", r"fusion.cross.\1.query.\2"),
    (_FUSION + r"fusion\.([01])\.attn\.wk\.(.+)", r"fusion.cross.\1.key.\2"),
    (_FUSION + r"fusion\.([01])\.attn\.wv\.(.+)", r"fusion.cross.\1.value.\2"),
    (_FUSION + r"fusion\.([01])\.attn\.proj\.(.+)", r"fusion.cross.\1.project.\2"),
    (_FUSION + r"revert_projs\.(.+)", r"fusion.come_back.\1"),
    (r"All2Cross\.norm\.(.+)", r"fusion.norms.\1"),
    (r"ConvUp_l\.conv_tower\.(.+)", r"rise_fine.\1"),
    (r"ConvUp_s\.conv_tower\.(.+)", r"rise_coarse.\1"),
    (r"conv_pred\.(.+)", r"predict.\1"),
    (r"segmentation_head\.0\.(.+)", r"head.\1"),
    # The ImageNet files of the two branches, separate or in one file.
    (r"conv1\.(.+)", r"stem.0.\1"),
    (r"bn1\.(.+)", r"stem.1.\1"),
    *((rf"layer{level + 1}\.(.+)", rf"cnn.{level}.\1") for level in range(3)),
    (r"layers\.([0-2])\.blocks\.(.+)", r"swin.\1.blocks.\2"),
    *((rf"layers\.{level - 1}\.downsample\.(.+)", rf"swin.{level}.downsample.\1") for level in (1, 2)),
)
_DROPPED = (
    (r".*\.(relative_position_index|attn_mask)", "computed by the network"),
    (_PYRAMID + r"p[23]\..+", "duplicate of a ResNet stage"),
    (r"ConvUp_[ls]\.convs_level\..+", "duplicate of a decoder convolution"),
    (r"layer4\..+|fc\..+", "the ResNet branch has no last stage"),
    (r"patch_embed\..+", "the input of the Swin branch is a ResNet map"),
    (r"layers\.2\.downsample\..+|layers\.3\..+|norm\..+|head\..+", "the Swin branch has no last stage"),
)


class CrossAttention(nn.Module):
    """Pre-norm attention of one token (B, 1, C) to itself and the tokens of the other level (B, N, C): (B, 1, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, token: Tensor, others: Tensor) -> Tensor:
        tokens = self.norm(torch.cat([token, others], dim=1))
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, tokens[:, :1]), (self.key, tokens), (self.value, tokens))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(attended.transpose(1, 2).flatten(2))
        return projected


def _projection(in_width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(in_width), nn.GELU(), nn.Linear(in_width, out_width))


class DoubleLevelFusion(nn.Module):
    """Exchanges information between the finest and the coarsest level, (B, H, W, C) each: two maps (B, C, H, W).

    In the paper each level gets a class token (the mean of its normalised tokens) and position embeddings, and runs
    through a transformer encoder; each class token then attends to the other level's tokens and returns to its level.
    The published code discards the encoders' results and removes the class tokens before the decoder, so only position
    embeddings and the last norm have an effect. `fused=False` computes this.

    `fused=True` uses the encoders' results and adds each class token, after its return, to all tokens of its level. The
    paper does not say how a class token affects the map; adding it needs no parameters.
    """

    def __init__(self, size: _Size, widths: tuple[int, int], sides: tuple[int, int]) -> None:
        super().__init__()
        self.fused = size.fused
        self.class_norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.positions = nn.ParameterList(
            nn.Parameter(torch.empty(1, 1 + side * side, width)) for side, width in zip(sides, widths, strict=True)
        )
        self.encoders = nn.ModuleList(
            nn.Sequential(
                *(Block(width, heads, size.mlp_ratio, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(blocks))
            )
            for width, heads, blocks in zip(widths, size.heads, size.blocks, strict=True)
        )
        directions = ((0, 1), (1, 0))
        self.leave = nn.ModuleList(_projection(widths[i], widths[j]) for i, j in directions)
        self.cross = nn.ModuleList(CrossAttention(widths[j], size.heads[j]) for _, j in directions)
        self.come_back = nn.ModuleList(_projection(widths[j], widths[i]) for i, j in directions)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.apply(init_weights)
        for position in self.positions:
            nn.init.trunc_normal_(position, std=0.02)

    def forward(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        levels = [fine.flatten(1, 2), coarse.flatten(1, 2)]
        if self.fused:
            levels = self._fuse(levels)
        else:
            levels = [tokens + position[:, 1:] for tokens, position in zip(levels, self.positions, strict=True)]
        return [
            norm(tokens).unflatten(1, shape.shape[1:3]).permute(0, 3, 1, 2)
            for norm, tokens, shape in zip(self.norms, levels, (fine, coarse), strict=True)
        ]

    def _fuse(self, levels: list[Tensor]) -> list[Tensor]:
        sequences = []
        for i, tokens in enumerate(levels):
            class_token = self.class_norms[i](tokens).mean(dim=1, keepdim=True)
            sequences.append(self.encoders[i](torch.cat([class_token, tokens], dim=1) + self.positions[i]))
        results = []
        for i, sequence in enumerate(sequences):
            class_token = self.leave[i](sequence[:, :1])
            class_token = class_token + self.cross[i](class_token, sequences[1 - i][:, 1:])
            results.append(sequence[:, 1:] + self.come_back[i](class_token))
        return results


def _decoder_convs(*widths: int, upsample: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for in_width, out_width in pairwise(widths):
        layers += [nn.Conv2d(in_width, out_width, 3, padding=1, bias=False), nn.GroupNorm(32, out_width), nn.ReLU(inplace=True)]
        if upsample:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


class HiFormer(SegmentationNetwork):
    """HiFormer of Heidari et al. (2023). Resizes its input to 224 x 224.

    Each ResNet level, projected to Swin's width, is added to the Swin branch's output for the previous level.
    """

    fixed_size = _SIDE
    stem_weights = ("stem.0.weight",)
    head_weights = ("head.weight", "head.bias")

    def __init__(self, size: _Size, in_channels: int, num_classes: int) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, size.resnet)(weights=None)
        if in_channels != 3:
            resnet.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.cnn = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3])
        self.lateral = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(size.channels, _WIDTHS, strict=True))
        sides = [_SIDE // 4, _SIDE // 8, _SIDE // 16]
        drop_paths = torch.linspace(0, _DROP_PATH, sum(_DEPTHS), device="cpu").tolist()
        self.swin = nn.ModuleList(
            SwinTransformerStage(
                dim=_WIDTHS[max(i - 1, 0)],
                out_dim=_WIDTHS[i],
                input_resolution=(sides[max(i - 1, 0)],) * 2,
                depth=_DEPTHS[i],
                downsample=i > 0,
                num_heads=_HEADS[i],
                window_size=_WINDOW,
                drop_path=drop_paths[sum(_DEPTHS[:i]) : sum(_DEPTHS[: i + 1])],
            )
            for i in range(3)
        )
        self.swin.apply(init_weights)
        self.fusion = DoubleLevelFusion(size, (_WIDTHS[0], _WIDTHS[2]), (sides[0], sides[2]))
        self.rise_fine = _decoder_convs(_WIDTHS[0], 128, upsample=False)
        self.rise_coarse = _decoder_convs(_WIDTHS[2], 128, 128, upsample=True)
        self.predict = nn.Sequential(
            nn.Conv2d(128, 16, 1),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False),
        )
        self.head = nn.Conv2d(16, num_classes, 3, padding=1)
        if not size.fused:
            used = ("fusion.positions.", "fusion.norms.")
            self.unused_parameters = tuple(
                name
                for name, _ in self.named_parameters()
                if name.startswith("fusion.") and not name.startswith(used)
            )

    def segment(self, x: Tensor) -> ModelOutput:
        x = self.stem(x)
        levels: list[Tensor] = []
        for cnn, lateral, transformer in zip(self.cnn, self.lateral, self.swin, strict=True):
            x = cnn(x)
            local = lateral(x).permute(0, 2, 3, 1)
            levels.append(local + transformer(levels[-1] if levels else local))
        fine, coarse = self.fusion(levels[0], levels[2])
        fused = self.rise_fine(fine) + self.rise_coarse(coarse)
        return ModelOutput(self.head(self.predict(fused)))

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Swin-T of timm and torchvision."""
        return swin.to_official(tensors)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models, and the ImageNet files of Swin-T and of torchvision's ResNet.

        The official code re-initialises most of the Swin weights after loading them, by mistake. Not copied.
        """
        drop_matching(adapter, _DROPPED)
        rename_keys(adapter, _OFFICIAL)


def build(
    variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None = None
) -> SegmentationNetwork:
    """HiFormer-`variant`. No options."""
    return HiFormer(_SIZES[variant], in_channels, num_classes)
