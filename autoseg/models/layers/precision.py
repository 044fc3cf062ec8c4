"""Parts of a network that stay in float32 when the rest runs in half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of `x`; tensors that come in half precision are for the caller to cast."""
    # The meta device has no autocast of its own; memory is measured there under the processor's.
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)
