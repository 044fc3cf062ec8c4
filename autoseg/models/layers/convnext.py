"""ConvNeXt as an encoder: torchvision's layers, with a separate norm for each output map.

Liu et al.: A ConvNet for the 2020s. CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torchvision
from torch import Tensor, nn

from autoseg.models.base import StateDictAdapter
from autoseg.models.key_mapping import drop_matching, rename_keys
from autoseg.models.published_weights import PublishedWeights, direct, on_hub

SIZES = {"t": "tiny", "s": "small", "b": "base"}
_DROP_PATH = 0.4
_DEPTHWISE, _NORM, _EXPAND, _PROJECT = 0, 2, 3, 5

_MMCLS = "https://download.openmmlab.com/mmclassification/v0/convnext/downstream"
_MMCLS_FILES = {
    "t": ("convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth", "ImageNet-1k"),
    "s": ("convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth", "ImageNet-1k"),
    "b": ("convnext-base_3rdparty_in21k_20220301-262fd037.pth", "ImageNet-21k"),
}
_TORCHVISION = "https://download.pytorch.org/models"
_TORCHVISION_FILES = {
    "t": "convnext_tiny-983f1562.pth",
    "s": "convnext_small-0c510722.pth",
    "b": "convnext_base-6075fbad.pth",
}
_MEGABYTES = {"t": 114, "s": 201, "b": 354}


def _weights_of(size: str) -> Iterator[PublishedWeights]:
    """mmclassification's file, which the published segmentation networks start from, then others."""
    file, data = _MMCLS_FILES[size]
    facts: dict[str, Any] = {"variant": size, "megabytes": _MEGABYTES[size]}
    yield direct(f"{_MMCLS}/{file}", trained_on=f"{data} classification (encoder)", licence="Apache-2.0", **facts)
    yield direct(
        f"{_TORCHVISION}/{_TORCHVISION_FILES[size]}",
        trained_on="ImageNet-1k classification (encoder)", licence="BSD-3-Clause", **facts,
    )  # fmt: skip
    further = {"fb_in22k_ft_in1k": "ImageNet-22k, then ImageNet-1k", "in12k_ft_in1k": "ImageNet-12k, then ImageNet-1k"}
    for name, data in further.items():
        if (size, name) != ("b", "in12k_ft_in1k"):
            trained_on = f"{data} classification (encoder)"
            yield on_hub(f"timm/convnext_{SIZES[size]}.{name}", trained_on=trained_on, licence="Apache-2.0", **facts)


WEIGHTS = tuple(one for size in SIZES for one in _weights_of(size))
_CLASSIFIER = (
    (r"head\.(fc\.)?(weight|bias)", "belongs to the ImageNet classifier"),
    (r"classifier\.2\..+", "belongs to the ImageNet classifier"),
)


def _official_names(ours: str) -> tuple[tuple[str, str], ...]:
    """Rows for `rename_keys`: names of mmclassification, the authors, timm and torchvision, with or without `backbone.`.

    A classifier's last norm becomes the norm of the deepest map. Only whole models have the other three norms.
    """
    last = rf"{ours}.norms.3.\1"
    rows = [
        (r"features\.(.+)", rf"{ours}.layers.\1"),
        (r"(?:head\.norm|norm|classifier\.0)\.(.+)", last),
        (r"norm([0-3])\.(.+)", rf"{ours}.norms.\1.\2"),
        (r"stem\.(.+)", rf"{ours}.layers.0.\1"),
    ]
    for i in range(4):
        block, block_ours = rf"stages\.{i}\.(?:blocks\.)?(\d+)\.", rf"{ours}.layers.{2 * i + 1}.\1."
        rows += [
            (rf"(?:downsample_layers\.{i}|stages\.{i}\.downsample)\.(.+)", rf"{ours}.layers.{2 * i}.\1"),
            (block + r"(?:depthwise_conv|dwconv|conv_dw)\.(.+)", block_ours + rf"block.{_DEPTHWISE}.\2"),
            (block + r"norm\.(.+)", block_ours + rf"block.{_NORM}.\2"),
            (block + r"(?:pointwise_conv1|pwconv1|mlp\.fc1)\.(.+)", block_ours + rf"block.{_EXPAND}.\2"),
            (block + r"(?:pointwise_conv2|pwconv2|mlp\.fc2)\.(.+)", block_ours + rf"block.{_PROJECT}.\2"),
            (block + "gamma", block_ours + "layer_scale"),
        ]
    return tuple((rf"(?:backbone\.)?{pattern}", replacement) for pattern, replacement in rows)


def load_encoder(adapter: StateDictAdapter, ours: str) -> None:
    """Load an official encoder, or that of a whole model, into the ConvNeXt named `ours`."""
    rename_keys(adapter, _official_names(ours))
    drop_matching(adapter, _CLASSIFIER)
    for name, tensor in adapter.assigned.items():
        if name.endswith(".layer_scale"):
            adapter.assign(name, *adapter.sources[name], transform=lambda *_, scale=tensor: scale.view(-1, 1, 1))


class ConvNeXt(nn.Module):
    """Image (B, C, H, W) -> four maps of strides 4, 8, 16, 32 with `widths` channels. Only the outputs are normalised, not
    the maps passed to the next stage.

    size: one of `SIZES`. Norms before the strided convolutions use epsilon 1e-5, as in mmclassification, whose weights
    the published segmentation networks start from; the authors and torchvision use 1e-6.
    """

    def __init__(self, size: str, in_channels: int = 3) -> None:
        super().__init__()
        classifier = getattr(torchvision.models, f"convnext_{SIZES[size]}")(
            stochastic_depth_prob=_DROP_PATH, layer_scale=1.0, num_classes=1
        )
        self.layers: nn.Sequential = classifier.features
        stem = self.layers[0][0]
        self.widths = tuple(stem.out_channels * 2**i for i in range(4))
        if in_channels != stem.in_channels:
            self.layers[0][0] = nn.Conv2d(in_channels, stem.out_channels, stem.kernel_size, stem.stride)
            nn.init.trunc_normal_(self.layers[0][0].weight, std=0.02)
            nn.init.zeros_(self.layers[0][0].bias)
        for i in (2, 4, 6):
            self.layers[i][0].eps = 1e-5
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in self.widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, norm in enumerate(self.norms):
            x = self.layers[2 * i + 1](self.layers[2 * i](x))
            maps.append(norm(x.movedim(1, -1)).movedim(-1, 1))
        return maps
