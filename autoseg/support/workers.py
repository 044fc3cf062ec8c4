"""The same work on many cases, side by side.

Threads, not processes: the heavy parts (decoding, resizing, hashing, distance transforms, tensors) release Python's lock,
and threads start at once, share memory and hand their exceptions over whole.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
_BRIEF = 0.001  # seconds: of items that take less, threads lose more in passing them on than they gain
WATCHING = "watching"  # the name of threads that do nothing but wait


def alone() -> bool:
    """Whether no other thread of this process has work to do."""
    return all(thread is threading.current_thread() or thread.name == WATCHING for thread in threading.enumerate())


def available_cores() -> int:
    """Cores this process may use (its affinity, not the machine's number)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], workers: int | None = None, ahead: int = 2, here: bool = False
) -> Iterator[B]:
    """`function` of each item, in order, with at most `workers * ahead` results waiting: memory stays flat.

    here: the caller's thread is one of the workers while the next result is not there, for callers that have little to do with
    a result; a tenth faster where items take milliseconds, since fewer results change threads, and the only one while items
    take less than one. An exception of `function` is raised here when its turn comes; nothing hangs and later items are not
    begun.
    """
    count = workers or available_cores()
    source = iter(items)
    waiting: deque[Future[B]] = deque()
    tasks: SimpleQueue[tuple[Future[B], A] | None] = SimpleQueue()

    def hand_out(number: int) -> None:
        for item in islice(source, number):
            waiting.append(Future())
            tasks.put((waiting[-1], item))

    def more_hands() -> None:
        while len(threads) < count - here:
            threads.append(threading.Thread(target=_work, args=(function, tasks), daemon=True))
            threads[-1].start()

    threads: list[threading.Thread] = []
    done, began = 0, perf_counter()
    try:
        hand_out(count * ahead)
        if not here:
            more_hands()
        while waiting:
            if here and not waiting[0].done() and _do(function, _next(tasks)):
                done += 1
                if perf_counter() - began > _BRIEF * (done + 2):
                    more_hands()
                continue
            result = waiting.popleft().result()
            hand_out(1)
            yield result
    finally:
        while _next(tasks):
            pass
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()


def _work(function: Callable[[A], B], tasks: SimpleQueue[tuple[Future[B], A] | None]) -> None:
    while _do(function, tasks.get()):
        pass


def _do(function: Callable[[A], B], task: tuple[Future[B], A] | None) -> bool:
    """Whether there was something to do."""
    if task is None:
        return False
    future, item = task
    try:
        future.set_result(function(item))
    except BaseException as error:  # Of all kinds: who waits for the result shall not wait for ever.
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise  # Ctrl-C does not wait for its turn.
    return True


def _next(tasks: SimpleQueue[tuple[Future[B], A] | None]) -> tuple[Future[B], A] | None:
    try:
        return tasks.get_nowait()
    except Empty:
        return None
