"""Weight initialisation shared by several architectures."""

from __future__ import annotations

import math

from torch import nn


def init_weights(module: nn.Module) -> None:
    """For `Module.apply`: linear layers truncated normal 0.02, convolutions normal with variance 2 / fan-out, biases 0.

    The fan-out of a grouped convolution is that of one group. Norm layers keep PyTorch's defaults.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
