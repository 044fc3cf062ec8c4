"""Which device to train or predict on."""

from __future__ import annotations

import torch

from autoseg.support.errors import AutosegError


def resolve(device: str = "auto") -> torch.device:
    """ "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps" as a torch device.

    Raises AutosegError if this machine or this PyTorch does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise AutosegError(f"there is no device {device!r}", "choose auto, cpu, cuda, cuda:1, ... or mps") from error
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise AutosegError(f"autoseg does not run on {device!r}", "choose auto, cpu, cuda or mps")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise AutosegError("PyTorch finds no Apple GPU (mps)", "use --device cpu, or auto")
    if chosen.type == "cuda":
        _check_cuda(chosen)
    return chosen


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        cpu_build = torch.version.cuda is None
        reason = "this PyTorch was built for CPUs only" if cpu_build else "there is no driver or no GPU"
        raise AutosegError(
            f"PyTorch finds no CUDA device: {reason}",
            "use --device cpu, or install a PyTorch built for CUDA (pytorch.org/get-started)",
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise AutosegError(
            f"there is no {device}: PyTorch finds {count} CUDA device{'s' if count > 1 else ''}",
            "device numbers start at cuda:0",
        )
