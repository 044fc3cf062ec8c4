"""Memory that goes round: what one image or step leaves, the next one takes.

By itself glibc returns large blocks to the system as soon as they are freed and asks for them again at once; the system fills
them with zeros page by page. That was a tenth of the time to prepare a dataset and of a training step on a processor.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_MAX_MMAP_THRESHOLD, _TOP_PAD_BYTES = 32 << 20, 16 << 20


def configure_glibc_malloc(limit: int | None) -> None:
    """Let this process keep up to `limit` bytes of freed memory; None: all it ever had, for steps that are all alike.

    For commands, whose process is their own. Where there is no glibc nothing happens.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    if limit is None:
        options = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: _TOP_PAD_BYTES}
    else:
        options = {_M_MMAP_THRESHOLD: min(limit, _MAX_MMAP_THRESHOLD), _M_TRIM_THRESHOLD: limit, _M_TOP_PAD: _TOP_PAD_BYTES}
    for option, value in options.items():
        set_option(option, value)
