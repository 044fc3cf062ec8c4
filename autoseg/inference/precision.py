"""Half precision, if the plan uses it and the device is faster with it. For training, and for prediction on GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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


def for_prediction(precision: str, device: torch.device) -> str:
    """The precision of masks, of a network planned for `precision`: "fp32" on processors, so that a mask does not depend on
    whether a processor has bf16 instructions, and equals that of the runtime folder; on GPUs the plan's, if they have it."""
    return "fp32" if device.type == "cpu" else name(usable(precision, device))


def name(dtype: torch.dtype | None) -> str:
    """What plans and records call an autocast type; None is "fp32"."""
    return {torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype] if dtype is not None else "fp32"


def trainable(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type of a training on `device`: as `usable`, but fp16 only where its gradients can be scaled.

    Small gradients are zero in fp16, so without loss scaling the training stalls, and nothing says why.
    """
    kind = usable(precision, device)
    return None if kind == torch.float16 and not _can_unscale(device) else kind


def _can_unscale(device: torch.device) -> bool:
    """Whether this PyTorch has `GradScaler`'s kernel for the device. MPS has it since 2.8."""
    kernel, key = "aten::_amp_foreach_non_finite_check_and_unscale_", device.type.upper()
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(kernel, key))
    except RuntimeError:
        # PyTorch knows no such device.
        return False


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """On CUDA, products of float32 matrices use the tensor cores (TF32: 10 bits of mantissa); elsewhere nothing changes.

    Convolutions use them by PyTorch's default. The caller's setting is restored.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
