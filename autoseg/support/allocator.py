"""Memory that goes round: what one image leaves, the next one takes."""

from __future__ import annotations

import ctypes

_LARGEST, _TRIM, _AHEAD = 32 << 20, 128 << 20, 16 << 20
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def hold_memory() -> None:
    """Let this process keep up to 128 MiB of freed memory. For commands that go through many images of a like size.

    By itself glibc returns the blocks of each image to the system and asks for them again for the next, which fills them with
    zeros page by page: a tenth of the time to prepare a dataset. Where there is no glibc nothing happens.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    for option, value in ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _TRIM), (_M_TOP_PAD, _AHEAD)):
        set_option(option, value)
