"""The same work on many cases, side by side.

Threads, not processes: the heavy parts (decoding, resizing, hashing, distance transforms, tensors) release Python's lock,
and threads start at once, share memory and hand their exceptions over whole.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def available_cores() -> int:
    """Cores this process may use (its affinity, not the machine's number)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(function: Callable[[A], B], items: Iterable[A], workers: int | None = None, ahead: int = 2) -> Iterator[B]:
    """`function` of each item, in order, with at most `workers * ahead` results waiting: memory stays flat.

    An exception of `function` is raised here when its turn comes; nothing hangs and later items are not begun.
    """
    count = workers or available_cores()
    source = iter(items)
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[B]] = deque(pool.submit(function, item) for item in islice(source, count * ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
