"""Parts of a network that run in float32 under mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """Context that disables autocast on the device of `x`. The caller casts tensors that are in half precision."""
    # The meta device, on which FLOPs are counted, has no autocast.
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)
