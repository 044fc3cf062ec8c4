"""VWFormer on ConvNeXt: see `autoseg.models.layers.vwformer`."""

from __future__ import annotations

from autoseg.models.base import ModelSpec, StateDictAdapter, Variant
from autoseg.models.layers import convnext, vwformer

SPEC = ModelSpec(
    name="vwformer_convnext",
    title="VWFormer (ConvNeXt)",
    family="generalist",
    citation=vwformer.CITATION,
    variants=(
        Variant("t", 35_370_274),
        Variant("s", 57_004_834),
        Variant("b", 95_347_970),
    ),
    default_variant="s",
    divisor=vwformer.DIVISOR,
    warmup_epochs=1,
    weights=convnext.WEIGHTS,
    cam_layer="head.enhance",
)


class VWFormerConvNeXt(vwformer.VWFormer):
    """The head on ConvNeXt's four maps: logits (B, K, H/4, W/4)."""

    stem_weights = ("encoder.layers.0.0.weight",)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Whole models of the official code, and ImageNet files of mmclassification, the authors, timm and torchvision."""
        super().load_official(adapter)
        convnext.load_encoder(adapter, "encoder")


def build(
    variant: str,
    in_channels: int,
    num_classes: int,
    input_size: tuple[int, int] | None = None,
    *,
    heads: int = 1,
    shortcut: bool = True,
    city: bool = False,
) -> VWFormerConvNeXt:
    """VWFormer with the encoder ConvNeXt-`variant`.

    heads: of the window attention; must divide 512. shortcut: add the attention's input to its output. city: the head
    published for Cityscapes; use shortcut=False with its files.
    """
    return VWFormerConvNeXt(convnext.ConvNeXt(variant, in_channels), num_classes, heads, shortcut, city)
