"""Half precision, if the plan uses it and the device is faster with it. For training and prediction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from autoseg.planning.hardware import processor_has_bf16


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context that runs a network in `precision` ("fp32", "bf16", "fp16"), or in fp32 if the device is not faster with it."""
    dtype = usable(precision, device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def usable(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type for `device`, None for fp32.

    CPUs use bf16 only, and only with instructions for it: emulated bf16 is slower than fp32.
    """
    if precision == "fp16" and device.type in ("cuda", "mps"):
        return torch.float16
    if precision == "bf16" and device.type == "cpu" and processor_has_bf16():
        return torch.bfloat16
    if precision == "bf16" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return None
