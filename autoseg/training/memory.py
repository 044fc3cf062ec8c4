"""Peak memory of a training, to compare with the planner's number and between architectures."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

from autoseg.planning.hardware import show_memory

# Of the planned bytes. Allocators round up, and convolutions want workspaces.
_TOLERANCE = 0.15
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin(device: torch.device) -> None:
    """Reset the peaks of this process, if the system supports it."""
    # Not every Linux has the file or allows writing to it. The peak is then that of the whole lifetime of the process.
    with suppress(OSError):
        _CLEAR.write_text("5")
    reset_device_peak(device)


def peak() -> int:
    """Peak resident memory of this process in bytes since `begin`; 0 if the system does not report it."""
    try:
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return _lifetime_peak()
    return _lifetime_peak()


def device_peak(device: torch.device) -> int:
    """Peak bytes of tensors on a CUDA device since `begin` or `reset_device_peak`; 0 for other devices."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def reset_device_peak(device: torch.device) -> None:
    """Begin to measure again, with the tensors that are alive now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def off_plan(measured: int, planned: int) -> str:
    """What is wrong with the planner's number, for a warning; "" if it is right within 15 %, or either was not measured."""
    if not measured or not planned or abs(measured - planned) <= _TOLERANCE * planned:
        return ""
    way = "more" if measured > planned else "less"
    return (
        f"a step of the training took {show_memory(measured)} of the device's memory, {abs(measured / planned - 1):.0%} {way} "
        f"than the planned {show_memory(planned)}: set --memory for the next plan with that in mind"
    )


def _lifetime_peak() -> int:
    try:
        import resource
    except ImportError:
        # Windows.
        return 0
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024
