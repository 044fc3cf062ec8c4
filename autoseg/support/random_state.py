"""Random generators of the caller stay as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def python_random_state_kept() -> Iterator[None]:
    """Restore Python's global generator: importing scikit-learn imports pandas, which draws from it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
