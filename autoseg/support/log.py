"""Logging of the command line: messages on standard error, progress bars in a terminal.

Every module logs through `logging.getLogger(__name__)`. Nothing is shown until `configure_logging` is called, or until the
user of the library configures logging on their own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_PACKAGES = ("autoseg", "dataset_conversion")


def configure_logging(level: int = logging.INFO) -> None:
    """Show autoseg's records of `level` and above on standard error, and progress bars from INFO on.

    For commands, and for notebooks that want to see what commands show. A second call replaces the first: standard error may
    be another stream by then. Loggers of other libraries and the root logger are not touched.
    """
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        for handler in [handler for handler in logger.handlers if isinstance(handler, _TerminalHandler)]:
            logger.removeHandler(handler)
        logger.addHandler(_TerminalHandler(sys.stderr))
        logger.propagate = False
        logger.setLevel(level)


def progress_bar(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar on standard error where that is a terminal and `configure_logging` asked for messages."""
    logger = logging.getLogger(_PACKAGES[0])
    shown = logger.isEnabledFor(logging.INFO) and any(isinstance(handler, _TerminalHandler) for handler in logger.handlers)
    return iter(tqdm(items, desc=what, total=total, leave=False, disable=None if shown else True, dynamic_ncols=True))


class _TerminalHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """INFO as plain lines; the rest with its level in front."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
