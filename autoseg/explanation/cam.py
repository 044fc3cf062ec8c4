"""Heat maps through pytorch-grad-cam: its methods, our networks and targets."""

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
# Singular values are taken of maps up to this side: of larger ones the matrix would not fit the memory.
_LARGEST = 48


class MeanLogit:
    """The target: the mean logit of a class inside a region (h, w) of the network's output."""

    def __init__(self, output: int, region: Tensor) -> None:
        self._output, self._region = output, region

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[self._output][self._region].mean()


class _Full(nn.Module):
    """A network in evaluation mode whose every parameter takes part in the gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits.float()


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module at a dotted path. Raises AutosegError, with near paths, where there is none."""
    modules = dict(network.named_modules())
    if name in modules and name:
        found: nn.Module = modules[name]
        return found
    near = difflib.get_close_matches(name, modules, n=5, cutoff=0.3) or [path for path in modules if path and "." not in path]
    raise AutosegError(f"the network has no layer {name!r}", f"for example: {', '.join(near[:8])}")


def heat_map(
    network: nn.Module, layer: nn.Module, images: Tensor, output: int, region: NDArray[np.bool_], method: str = GRADCAM
) -> NDArray[np.float32]:
    """Heat (h, w) from 0 to 1 at the size of images (1, C, h, w).

    output: the logit map explained; region: (h, w), where its mean is taken. gradcam weighs the layer's maps by the target's
    gradients; eigencam, gradient-free, is the first principal component of the layer's maps and the same for every class.
    Raises AutosegError where pytorch-grad-cam is not installed, or the layer gives no map.
    """
    try:
        from pytorch_grad_cam import EigenCAM, GradCAM
    except ImportError as error:
        raise AutosegError("heat maps need pytorch-grad-cam", 'pip install "autoseg[explain]"') from error
    kind = {GRADCAM: GradCAM, GRADIENT_FREE: EigenCAM}[method]
    shape = as_map(images.shape[-2:], _LARGEST if method == GRADIENT_FREE else None)
    with torch.enable_grad(), kind(_Full(network), [layer], reshape_transform=shape) as cam:
        found = cam(images.requires_grad_(method == GRADCAM), [MeanLogit(output, torch.from_numpy(region).to(images.device))])
    return np.nan_to_num(np.asarray(found[0], np.float32))


def as_map(size: tuple[int, ...] | torch.Size, largest: int | None = None) -> Callable[[Any], Tensor]:
    """Turns what a layer gives into (B, C, h, w): maps stay, tokens (B, L, C) get the aspect of `size`. largest: side to
    which larger maps are averaged."""

    def reshape(output: Any) -> Tensor:
        one: Tensor = output[0] if isinstance(output, tuple | list) else output
        if one.ndim == 4:
            sides = tuple(one.shape[-2:])
            if largest is not None and max(sides) > largest:
                return F.adaptive_avg_pool2d(one, (min(sides[0], largest), min(sides[1], largest)))
            return one
        if one.ndim != 3:
            raise AutosegError(f"the layer gives an array of {one.ndim} axes, not a map", "choose another layer")
        tokens = one.shape[1]
        height = max(1, round(math.sqrt(tokens * size[0] / size[1])))
        if tokens % height:
            raise AutosegError(f"the layer's {tokens} tokens are no grid of the image's aspect", "choose another layer")
        return one.transpose(1, 2).reshape(one.shape[0], -1, height, tokens // height)

    return reshape
