"""Foundation encoders under short names, each with its sizes. They are models `timm:NAME` with other names.

Sizes stop where published comparisons found no reliable gain from larger ones (arXiv 2509.06467).
"""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.models.base import ModelSpec, Transfer, Variant
from autoseg.models.generalist.timm_upernet import ENCODER_SLOWLY, LAYER_BY_LAYER, TimmModel, published
from autoseg.models.layers.timm_network import build_variant


def _preset(
    name: str,
    title: str,
    citation: str,
    divisor: int,
    default: str,
    encoders: Mapping[Variant, str],
    transfer: Transfer = ENCODER_SLOWLY,
    trained_on: str = "",
) -> TimmModel:
    """encoders: variant -> timm's name of its encoder. trained_on: if the tag of the weights does not tell it."""
    names = {variant.name: encoder for variant, encoder in encoders.items()}

    spec = ModelSpec(
        name=name,
        title=title,
        family="foundation",
        citation=citation,
        variants=tuple(encoders),
        default_variant=default,
        divisor=divisor,
        weights=tuple(one for variant, encoder in names.items() for one in published(encoder, variant, trained_on)),
        transfer=transfer,
        cam_layer="decoder.fuse",
    )
    return TimmModel(spec, build_variant(names))


SAM2_HIERA = _preset(
    "sam2_hiera", "SAM 2's Hiera + light UPerHead",
    "Ravi et al.: SAM 2: Segment Anything in Images and Videos. ICLR 2025.",
    32, "tiny", {Variant("tiny", 27_950_882): "sam2_hiera_tiny.fb_r896_2pt1"},
    trained_on="SA-1B and SA-V, masks (SAM 2.1) (encoder)",
)  # fmt: skip
DINOV2 = _preset(
    "dinov2", "DINOv2 + light UPerHead",
    "Oquab et al.: DINOv2: Learning Robust Visual Features without Supervision. TMLR 2024.",
    14, "small",
    {
        Variant("small", 23_371_458): "vit_small_patch14_dinov2.lvd142m",
        Variant("small_reg4", 23_372_610, "with four register tokens"): "vit_small_patch14_reg4_dinov2.lvd142m",
    },
    transfer=LAYER_BY_LAYER,
)  # fmt: skip
DINOV3_VIT = _preset(
    "dinov3_vit", "DINOv3 (ViT) + light UPerHead",
    "Siméoni et al.: DINOv3. arXiv 2508.10104, 2025.",
    16, "small",
    {
        Variant("small", 22_902_210): "vit_small_patch16_dinov3.lvd1689m",
        Variant("base", 89_310_498): "vit_base_patch16_dinov3.lvd1689m",
    },
)  # fmt: skip
DINOV3_CONVNEXT = _preset(
    "dinov3_convnext", "DINOv3 (ConvNeXt) + light UPerHead",
    "Siméoni et al.: DINOv3. arXiv 2508.10104, 2025.",
    32, "tiny",
    {
        Variant("tiny", 28_920_002): "convnext_tiny.dinov3_lvd1689m",
        Variant("small", 50_554_562): "convnext_small.dinov3_lvd1689m",
    },
)  # fmt: skip
PE_SPATIAL = _preset(
    "pe_spatial", "Perception Encoder (spatial) + light UPerHead",
    "Bolya et al.: Perception Encoder: The best visual embeddings are not at the output of the network. NeurIPS 2025.",
    16, "small",
    {
        Variant("tiny", 6_319_122): "vit_pe_spatial_tiny_patch16_512.fb",
        Variant("small", 23_298_498): "vit_pe_spatial_small_patch16_512.fb",
    },
    transfer=LAYER_BY_LAYER,
    trained_on="images with text, aligned with SAM 2.1 (encoder)",
)  # fmt: skip
