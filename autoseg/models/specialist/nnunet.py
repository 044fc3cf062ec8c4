"""nnU-Net's 2D networks, from its authors' package: convolutional U-Nets whose depth depends on the input size.

`resenc_m` and `resenc_l` have the residual encoder of Isensee et al., nnU-Net Revisited, MICCAI 2024. There both presets have
the same layers, and L has larger patches and batches. Here the plan gives all models the same, so L has wider layers instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant

_RESIDUAL = "residual encoder"
SPEC = ModelSpec(
    name="nnunet",
    title="nnU-Net",
    family="specialist",
    citation="Isensee et al.: nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. "
    "Nature Methods 2021.",
    variants=(
        Variant("small", 11_589_838),
        Variant("standard", 46_325_134),
        Variant("resenc_m", 140_017_614, _RESIDUAL),
        Variant("resenc_l", 314_962_862, _RESIDUAL),
    ),
    default_variant="standard",
    deep_supervision=True,
    full_resolution=True,
    batch_statistics=False,
    channels_last_on_cuda=False,
    high_rate=True,
    cam_layer="network.encoder.stages.4",
)
# First and largest number of feature maps.
_WIDTHS = {"small": (16, 256), "standard": (32, 512), "resenc_m": (32, 512), "resenc_l": (48, 768)}
# Residual blocks of the encoder's stages, as in nnU-Net's presets; the decoder has one convolution each.
_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
_DEFAULT_SIZE = (512, 512)
_MAX_STAGES = 8


def stages_for(input_size: tuple[int, int]) -> int:
    """Number of resolutions: halve while the shorter side is at least 4, as nnU-Net's planner does in 2D."""
    stages, side = 1, min(input_size)
    while side // 2 >= 4 and stages < _MAX_STAGES:
        stages, side = stages + 1, side // 2
    return stages


def _network(
    residual: bool, in_channels: int, num_classes: int, widths: Sequence[int]
) -> PlainConvUNet | ResidualEncoderUNet:
    """widths: feature maps of each stage, the finest first."""
    stages = len(widths)
    make, blocks, convolutions = (ResidualEncoderUNet, _BLOCKS[:stages], 1) if residual else (PlainConvUNet, 2, 2)
    return make(
        in_channels,
        stages,
        list(widths),
        nn.Conv2d,
        3,
        [1] + [2] * (stages - 1),
        blocks,
        num_classes,
        convolutions,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


class NNUNet(SegmentationNetwork):
    """A U-Net with deep supervision in training: weights 1, 1/2, 1/4, ... without the coarsest map."""

    def __init__(self, variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        stages = stages_for(input_size)
        first, largest = _WIDTHS[variant]
        self.divisor = 2 ** (stages - 1)
        # Instance norm needs more than one value in the coarsest map.
        self.min_side = 2 * self.divisor
        widths = [min(first * 2**level, largest) for level in range(stages)]
        self.network = _network(variant.startswith("resenc"), in_channels, num_classes, widths)
        state = self.state_dict()
        if not any(value.is_meta for value in state.values()):  # Planning has no values to initialise; drawing them takes long.
            self.network.apply(self.network.initialize)
        heads = tuple(name for name in state if ".seg_layers." in name)
        self.head_weights = heads
        stems = (".stages.0.0.convs.0.", ".encoder.stem.convs.0.")
        residual = any(stems[1] in name for name in state)
        self.stem_weights = tuple(name for name in state if stems[residual] in name and state[name].ndim == 4)
        # nnU-Net gives the coarsest head weight zero in the loss.
        self.unused_parameters = tuple(name for name in heads if ".seg_layers.0." in name) if stages > 2 else ()

    def train(self, mode: bool = True) -> NNUNet:
        super().train(mode)
        self.network.decoder.deep_supervision = mode
        return self

    def segment(self, x: Tensor) -> ModelOutput:
        if not self.training:
            return ModelOutput(self.network(x))
        finest, *coarser = self.network(x)
        used = coarser[:-1] if len(coarser) > 1 else coarser
        return ModelOutput(finest, tuple((logits, 0.5 ** (level + 1)) for level, logits in enumerate(used)))

    def load_official(self, adapter: StateDictAdapter) -> None:
        own = self.state_dict()
        for name in adapter.remaining:
            if f"network.{name}" in own:
                adapter.assign(f"network.{name}", name)


def build(variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int] | None) -> NNUNet:
    """input_size (height, width) sets the depth; default 512 x 512."""
    return NNUNet(variant, in_channels, num_classes, input_size or _DEFAULT_SIZE)
