"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def seen(what: Callable[[], bool]) -> bool:
    """Whether it came true within half a minute: machines may be busy."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.01)
    return False


def runs(process: int) -> bool:
    """One that has ended but was not asked how, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
