"""nnU-Net's 2D network, from its authors' package: a plain convolutional U-Net whose depth depends on the input size."""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, StateDictAdapter, Variant

SPEC = ModelSpec(
    name="nnunet",
    title="nnU-Net (PlainConvUNet)",
    family="specialist",
    citation="Isensee et al.: nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. "
    "Nature Methods 2021.",
    variants=(Variant("small", 11_589_838), Variant("standard", 46_325_134)),
    default_variant="standard",
    deep_supervision=True,
    batch_statistics=False,
    channels_last_on_cuda=False,
    cam_layer="network.encoder.stages.4",
)
# First and largest number of feature maps.
_WIDTHS = {"small": (16, 256), "standard": (32, 512)}
_DEFAULT_SIZE = (512, 512)
_MAX_STAGES = 8


def stages_for(input_size: tuple[int, int]) -> int:
    """Number of resolutions: halve while the shorter side is at least 4, as nnU-Net's planner does in 2D."""
    stages, side = 1, min(input_size)
    while side // 2 >= 4 and stages < _MAX_STAGES:
        stages, side = stages + 1, side // 2
    return stages


class NNUNet(SegmentationNetwork):
    """PlainConvUNet with deep supervision in training: weights 1, 1/2, 1/4, ... without the coarsest map."""

    def __init__(self, variant: str, in_channels: int, num_classes: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        stages = stages_for(input_size)
        first, largest = _WIDTHS[variant]
        self.divisor = 2 ** (stages - 1)
        # Instance norm needs more than one value in the coarsest map.
        self.min_side = 2 * self.divisor
        self.network = PlainConvUNet(
            in_channels,
            stages,
            [min(first * 2**level, largest) for level in range(stages)],
            nn.Conv2d,
            3,
            [1] + [2] * (stages - 1),
            2,
            num_classes,
            2,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
        self.network.apply(self.network.initialize)
        state = self.state_dict()
        heads = tuple(name for name in state if ".seg_layers." in name)
        self.head_weights = heads
        self.stem_weights = tuple(name for name in state if ".stages.0.0.convs.0." in name and state[name].ndim == 4)
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
