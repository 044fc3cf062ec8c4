"""Work that may need more memory than there is: try it, and free what the failed attempt held before anything else runs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from autoseg.support.out_of_memory import is_out_of_memory

T = TypeVar("T")


def within_memory(work: Callable[[], T]) -> T | None:
    """The result of `work`, or None if it ran out of memory; what it had allocated is then free again.

    Call it outside of an `except` block: the error that is handled there keeps the frames of the failed call alive, with
    their tensors. Other errors pass.
    """
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # The error is gone here, and with it the frames that held tensors. Only cycles are left.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
