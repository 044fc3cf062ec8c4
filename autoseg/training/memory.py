"""The most memory a training held: what the planner's budget is about, and what a comparison of architectures asks for."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin(device: torch.device) -> None:
    """Forget earlier peaks of this process, where the system can."""
    # Not every Linux has the file, or lets it be written; the peak is then that of the process's whole life.
    with suppress(OSError):
        _CLEAR.write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak() -> int:
    """Most bytes this process has held in the machine's memory since `begin`; 0 where the system does not say."""
    try:
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return _of_life()
    return _of_life()


def device_peak(device: torch.device) -> int:
    """Most bytes of tensors on a CUDA device since `begin`; 0 for other devices."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def _of_life() -> int:
    try:
        import resource
    except ImportError:
        # Windows.
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
