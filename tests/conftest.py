"""Settings for all tests."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest

# One thread per process and no spinning: tests run in parallel, and small tensors gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell starts background jobs with Ctrl-C ignored, and so would be the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _library_logging() -> Iterator[None]:
    """Each test starts as a library user does: without the logging configuration that commands leave behind.

    Also before the test: fixtures of a module or package may have run a command.
    """
    _reset_loggers()
    yield
    _reset_loggers()


def _reset_loggers() -> None:
    for name in ("autoseg", "dataset_conversion", "highdicom", "pydicom", "tifffile"):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
