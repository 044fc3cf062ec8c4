"""What the user reads while something runs: lines to standard error, progress bars where a person is watching."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LOGGER = logging.getLogger("autoseg")


def set_up(verbose: bool = True) -> None:
    """Send autoseg's messages to standard error. Called by commands; a library user configures logging as they like."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LevelPrefix())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.propagate = False
    _LOGGER.setLevel(logging.INFO if verbose else logging.WARNING)


def say(message: str) -> None:
    """A line of progress."""
    _LOGGER.info(message)


def warn(message: str) -> None:
    """Something the user should know, though work goes on."""
    _LOGGER.warning(message)


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """`items` with a bar on standard error, where that is a terminal and messages are wanted."""
    quiet = not _LOGGER.isEnabledFor(logging.INFO) or not _LOGGER.handlers
    return iter(_Bar(items, desc=what, total=total, leave=False, disable=True if quiet else None, dynamic_ncols=True))


class _Bar(tqdm):
    """One without tqdm's thread, which mends bars that hang: beside a thread a process is not copied safely."""

    monitor_interval = 0


class _LevelPrefix(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
