"""VWFormer on MiT: see `autoseg.models.layers.vwformer`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoseg.models.base import ModelSpec, StateDictAdapter, Variant
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.layers import mit, mit_names, vwformer

SPEC = ModelSpec(
    name="vwformer_mit",
    title="VWFormer (MiT)",
    family="generalist",
    citation=vwformer.CITATION,
    variants=(
        Variant("b0", 10_422_754),
        Variant("b1", 20_502_082),
        Variant("b2", 31_546_946),
        Variant("b3", 51_422_786),
        Variant("b4", 68_193_346),
        Variant("b5", 88_793_666),
    ),
    default_variant="b3",
    divisor=vwformer.DIVISOR,
    warmup_epochs=1,
    weights=mit.WEIGHTS,
    cam_layer="head.enhance",
)

_OFFICIAL = mit.official_names("encoder")


class VWFormerMiT(vwformer.VWFormer):
    """The head on MiT's four maps: logits (B, K, H/4, W/4)."""

    stem_weights = ("encoder.stages.0.embed.weight",)

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Encoders of transformers and mmsegmentation."""
        return mit_names.to_official(tensors)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and ImageNet files of the encoder (`mit_b*.pth`)."""
        super().load_official(adapter)
        rename_keys(adapter, _OFFICIAL)
        drop_matching(adapter, [mit.CLASSIFIER])


def build(
    variant: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    *,
    heads: int = 1,
    shortcut: bool = True,
    city: bool = False,
) -> VWFormerMiT:
    """VWFormer with the encoder MiT-`variant`.

    heads: of the window attention; must divide 512. shortcut: add the attention's input to its output. city: the head
    published for Cityscapes; use shortcut=False with its files.
    """
    return VWFormerMiT(mit.MiT(variant, in_channels), num_classes, heads, shortcut, city)
