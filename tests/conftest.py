"""Settings every test runs under."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

# One thread a process, and none that spins while it waits: tests run side by side, and small tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """A command called inside a test configures logging; the next test starts without that."""
    before = []
    for name in ("autoseg", "dataset_conversion", "highdicom"):
        logger = logging.getLogger(name)
        before.append((logger, list(logger.handlers), logger.level, logger.propagate))
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
