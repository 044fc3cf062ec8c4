"""Heat maps with pytorch-grad-cam, for our networks and targets."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.support.errors import AutosegError

GRADCAM, GRADIENT_FREE = "gradcam", "eigencam"
METHODS = (GRADCAM, GRADIENT_FREE)
# Larger maps are averaged to this side for EigenCAM: its singular value decomposition would not fit into memory.
_MAX_EIGENCAM_SIDE = 48


class MeanLogit:
    """Target of the heat map: the mean logit of a class inside a region (h, w) of the output."""

    def __init__(self, output: int, region: Tensor) -> None:
        self._output, self._region = output, region

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[self._output][self._region].mean()


class _FloatLogits(nn.Module):
    """A network that returns its logits as float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits.float()


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module at a dotted path. Raises AutosegError, with similar paths, if there is none."""
    modules = dict(network.named_modules())
    if name in modules and name:
        layer: nn.Module = modules[name]
        return layer
    similar = difflib.get_close_matches(name, modules, n=5, cutoff=0.3)
    similar = similar or [path for path in modules if path and "." not in path]
    raise AutosegError(f"the network has no layer {name!r}", f"for example: {', '.join(similar[:8])}")


def heat_map(
    network: nn.Module, layer: nn.Module, images: Tensor, output: int, region: NDArray[np.bool_], method: str = GRADCAM
) -> NDArray[np.float32]:
    """Heat (h, w) from 0 to 1 at the size of images (1, C, h, w).

    output: index of the explained logit map; region: (h, w) over which its mean is taken. gradcam weights the layer's maps
    by the target's gradients. eigencam (gradient-free) is the first principal component of the layer's maps, equal for all
    classes. Raises AutosegError if pytorch-grad-cam is not installed, or the layer's output is not a map.
    """
    try:
        from pytorch_grad_cam import EigenCAM, GradCAM
    except ImportError as error:
        raise AutosegError("heat maps need pytorch-grad-cam", 'pip install "autoseg[explain]"') from error
    cam_class = {GRADCAM: GradCAM, GRADIENT_FREE: EigenCAM}[method]
    to_map = as_map(images.shape[-2:], _MAX_EIGENCAM_SIDE if method == GRADIENT_FREE else None)
    with torch.enable_grad(), cam_class(_FloatLogits(network), [layer], reshape_transform=to_map) as cam:
        heat = cam(images.requires_grad_(method == GRADCAM), [MeanLogit(output, torch.from_numpy(region).to(images.device))])
    return np.nan_to_num(np.asarray(heat[0], np.float32))


def as_map(size: tuple[int, ...] | torch.Size, max_side: int | None = None) -> Callable[[Any], Tensor]:
    """A function from a layer's output to maps (B, C, h, w). Tokens (B, L, C) get the aspect ratio of `size`. max_side:
    larger maps are averaged to this side."""

    def reshape(output: Any) -> Tensor:
        tensor: Tensor = output[0] if isinstance(output, tuple | list) else output
        if tensor.ndim == 4:
            sides = tuple(tensor.shape[-2:])
            if max_side is not None and max(sides) > max_side:
                return F.adaptive_avg_pool2d(tensor, (min(sides[0], max_side), min(sides[1], max_side)))
            return tensor
        if tensor.ndim != 3:
            raise AutosegError(f"the layer's output has {tensor.ndim} axes and is not a map", "choose another layer")
        tokens = tensor.shape[1]
        height = max(1, round(math.sqrt(tokens * size[0] / size[1])))
        if tokens % height:
            raise AutosegError(f"the layer's {tokens} tokens form no grid with the image's aspect", "choose another layer")
        return tensor.transpose(1, 2).reshape(tensor.shape[0], -1, height, tokens // height)

    return reshape
