"""SegFormer: the hierarchical transformer MiT and a decoder of per-pixel linear layers.

Xie et al.: SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers import mit, mit_names
from autoseg.models.layers.fusion import MapFusion

SPEC = ModelSpec(
    name="segformer",
    title="SegFormer",
    family="generalist",
    citation="Xie E., Wang W., Yu Z., Anandkumar A., Alvarez J. M., Luo P.: SegFormer: Simple and Efficient Design for "
    "Semantic Segmentation with Transformers. NeurIPS 2021.",
    variants=(
        Variant("b0", 3_714_658),
        Variant("b1", 13_677_762),
        Variant("b2", 27_348_162),
        Variant("b3", 47_224_002),
        Variant("b4", 63_994_562),
        Variant("b5", 84_594_882),
    ),
    default_variant="b3",
    divisor=32,
    warmup_epochs=1,
    weights=mit.WEIGHTS,
    cam_layer="fuse",
)

_OFFICIAL = (
    *mit.official_names("encoder"),
    # Maps are concatenated with the deepest first.
    *((rf"decode_head\.linear_c{4 - i}\.proj\.(.+)", rf"fuse.projections.{i}.\1") for i in range(4)),
    (r"decode_head\.linear_fuse\.conv\.(.+)", r"fuse.mix.\1"),
    (r"decode_head\.linear_fuse\.bn\.(.+)", r"fuse.norm.\1"),
    (r"decode_head\.linear_pred\.(.+)", r"classify.\1"),
)
_DROPPED = (
    mit.CLASSIFIER,
    (r"decode_head\.conv_seg\..+", "the official decoder does not use it"),
    (r"decode_head\.(?:convs\.\d|fusion_conv)\..+", "mmsegmentation's decoder has other layers than the official one"),
)


class SegFormer(SegmentationNetwork):
    """Logits (B, K, H/4, W/4).

    channels: to which each encoder map is projected (256 for the two smallest encoders, 768 for the others).
    """

    divisor = 32
    stem_weights = ("encoder.stages.0.embed.weight",)
    head_weights = ("classify.weight", "classify.bias")

    def __init__(self, size: str, in_channels: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.encoder = mit.MiT(size, in_channels)
        self.fuse = MapFusion(self.encoder.widths[::-1], [channels] * 4, channels)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def segment(self, x: Tensor) -> ModelOutput:
        maps = self.encoder(x)
        fused = self.fuse(maps[::-1], maps[0].shape[-2:])
        return ModelOutput(self.classify(self.dropout(fused)))

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Files of transformers and mmsegmentation."""
        return mit_names.to_official(tensors)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and ImageNet files of the encoder (`mit_b*.pth`)."""
        rename_keys(adapter, _OFFICIAL)
        drop_matching(adapter, _DROPPED)


def build(variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None = None) -> SegFormer:
    """SegFormer with the encoder MiT-`variant`. No options."""
    return SegFormer(variant, in_channels, num_classes, channels=256 if variant in ("b0", "b1") else 768)
