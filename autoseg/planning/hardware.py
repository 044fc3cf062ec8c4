"""The machine of a plan: device, precision, memory budget."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import torch

from autoseg.schema.plan import Decision
from autoseg.support.errors import AutosegError

DEVICES = ("cpu", "cuda", "mps")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Less is certainly a forgotten unit.
_LEAST_MEMORY = 1_000_000
# Fraction of the memory for a training. On a CPU, the system, the data loader and the page cache need memory too. On a GPU,
# the driver has already taken its part.
_MEMORY_FRACTION = {"cpu": 0.5, "cuda": 0.9, "mps": 0.5}
# Container limits (cgroup versions 2 and 1).
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def resolve_device(device: str) -> str:
    """ "cpu", "cuda" or "mps" for a device's name ("cuda:1" too); "auto" is the fastest available one. Raises AutosegError."""
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    if kind not in DEVICES or not re.fullmatch(r"(cpu|mps)|cuda(:\d+)?", device):
        raise AutosegError(f"there is no device {device!r}", f"choose one of auto, {', '.join(DEVICES)}")
    return kind


def parse_memory(amount: int | str) -> int:
    """Bytes of "8G", "512M", "8GiB", "8000000000". Raises AutosegError, also for an amount that no training can have."""
    text = str(amount)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise AutosegError(f"{text!r} is no amount of memory", "write a number and a unit, such as 8G or 512M")
    size = int(float(match[1]) * _UNITS[match[2].upper()])
    if size < _LEAST_MEMORY:
        raise AutosegError(f"{size} bytes of memory are too little", "write a number and a unit, such as 8G or 512M")
    return size


def show_memory(size: int) -> str:
    """Formatted bytes: "3.4 GiB"."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def default_budget(device: str) -> tuple[int, str]:
    """Bytes a training may take on "cpu", "cuda", "cuda:1" or "mps", and the reason. Raises AutosegError without that GPU."""
    kind, _, index = device.partition(":")
    if kind == "cuda" and torch.cuda.is_available():
        number = int(index) if index else torch.cuda.current_device()
        if number >= torch.cuda.device_count():
            raise AutosegError(f"there is no {device}: PyTorch finds {torch.cuda.device_count()}", "numbers start at cuda:0")
        properties = torch.cuda.get_device_properties(number)
        total, owner = int(properties.total_memory), properties.name
    else:
        # For a plan for another machine with a GPU, this machine's memory is used instead.
        total, owner = _physical_memory(), "this machine"
    budget = int(total * _MEMORY_FRACTION[kind])
    return budget, f"{_MEMORY_FRACTION[kind]:.0%} of the {show_memory(total)} of {owner}; set another with --memory"


def decide_precision(device: str, mixed_precision: bool, model: str) -> tuple[Literal["fp32", "bf16", "fp16"], Decision]:
    """Half precision if the device is faster with it and the architecture is stable (`mixed_precision`)."""
    subject = f"models.{model}.precision"
    if not mixed_precision:
        return "fp32", Decision(subject, "fp32", "this architecture is known to be unstable in half precision")
    if device == "cpu":
        if processor_has_bf16():
            return "bf16", Decision(subject, "bf16", "the processor has bf16 instructions: up to twice as fast")
        return "fp32", Decision(subject, "fp32", "the processor has no bf16 instructions; emulation would be slower")
    if device == "cuda" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", Decision(subject, "bf16", "the GPU has bf16, which needs no loss scaling")
    return "fp16", Decision(subject, "fp16", "half precision halves memory and time on GPUs; bf16 may not be supported")


def decide_memory_format(model: str) -> tuple[Literal["auto"], Decision]:
    """The training decides, because it knows the device."""
    return "auto", Decision(f"models.{model}.memory_format", "auto", "the training decides by device, precision and model")


def processor_has_bf16() -> bool:
    """Whether the processor has instructions for bf16 (AVX512-BF16 or AMX)."""
    # Private functions, not in all torch releases. Without them, fp32 is safe.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)


def _physical_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    for path in map(Path, _LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total
