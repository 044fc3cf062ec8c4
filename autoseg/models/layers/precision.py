"""Parts of a network that stay in float32 when the rest runs in half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of `x`; tensors that come in half precision are for the caller to cast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
