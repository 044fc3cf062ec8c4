"""Settings for all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

# One thread per process and no spinning: tests run in parallel, and small tensors gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _restore_loggers() -> Iterator[None]:
    """Undo the logging configuration of commands after each test."""
    before = []
    for name in ("autoseg", "dataset_conversion", "highdicom"):
        logger = logging.getLogger(name)
        before.append((logger, list(logger.handlers), logger.level, logger.propagate))
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
