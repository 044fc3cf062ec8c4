"""Plans that do not depend on what else a machine does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def processor_time() -> Iterator[None]:
    """autoseg's planner times optimiser steps in seconds of this process instead of the clock's, so that other programs do not
    shorten a training. Only for one thread on a processor.
    """
    clock, time.perf_counter = time.perf_counter, time.process_time
    try:
        yield
    finally:
        time.perf_counter = clock
