"""Recognises errors that say that memory is full, whichever library raises them."""

from __future__ import annotations

REMEDY = "close other programs, use fewer workers, or use a machine with more memory"
# CPUs, MPS, the libraries under CUDA, ITK and OpenCV raise plain errors: only their text says so.
_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "insufficient memory",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the device or of the machine is full."""
    if isinstance(error, MemoryError):
        return True
    # cv2.error has no other base than Exception, and importing OpenCV takes a while.
    may_say_so = isinstance(error, RuntimeError | OSError) or type(error).__module__.partition(".")[0] == "cv2"
    text = str(error).lower()
    return may_say_so and any(message in text for message in _MESSAGES)
