"""Half precision where the plan asks for it and the device gains by it. Shared by training and prediction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from autoseg.planning.hardware import processor_has_bf16


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context that runs a network at `precision` ("fp32", "bf16", "fp16"), or at fp32 where the device has no gain."""
    kind = usable(precision, device)
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)


def usable(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type to use on `device`, None for plain fp32.

    On processors only bf16, and only with instructions for it: without them it is emulated and slower than fp32.
    """
    if precision == "fp16" and device.type in ("cuda", "mps"):
        return torch.float16
    if precision == "bf16" and device.type == "cpu" and processor_has_bf16():
        return torch.bfloat16
    if precision == "bf16" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return None
