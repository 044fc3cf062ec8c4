"""Work that may need more memory than there is: try it, and free what the failed attempt held before anything else runs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
# CPUs, MPS and the libraries under CUDA raise a plain RuntimeError: only its text says out of memory.
_MESSAGES = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the device or of the machine is full."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def within_memory(work: Callable[[], T]) -> T | None:
    """The result of `work`, or None if it ran out of memory; what it had allocated is then free again.

    Call it outside of an `except` block: the error that is handled there keeps the frames of the failed call alive, with
    their tensors. Other errors pass.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # The error is gone here, and with it the frames that held tensors. Only cycles are left.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
