"""The same function on many items, over threads or worker processes (concurrent.futures); results in the items' order.

Threads start at once and share memory, and decoding, resizing and tensor operations release Python's lock. Processes use more
than two cores well, but take half a second to start, and each imports the program's main module again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import TypeVar

from autoseg.support.errors import AutosegError
from autoseg.support.interrupts import held_signals
from autoseg.support.malloc import configure_glibc_malloc
from autoseg.support.pixel_limit import max_pixels, set_max_pixels

A = TypeVar("A")
B = TypeVar("B")
_MIN_ITEMS = 2000  # items
_MAX_PROCESSES = 16  # One parent cannot feed more.


def available_cores() -> int:
    """Cores this process may use (its affinity, not the machine's number)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def should_use_processes(items: int) -> bool:
    """Whether so many items of a few milliseconds each justify the start of worker processes."""
    return items >= _MIN_ITEMS and available_cores() > 1


def parallel_map(
    function: Callable[[A], B],
    items: Iterable[A],
    workers: int | None = None,
    *,
    prefetch: int = 2,
    processes: bool = False,
    name: Callable[[A], str] = str,
) -> Iterator[B]:
    """`function` of each item, in order; at most `workers * prefetch` items are started ahead, so memory stays constant.

    workers: default: one for each core. processes: use processes; function, items and results must then be picklable. name:
    of an item, for the error. An exception of `function` is raised at its item's turn; later items are cancelled. Raises
    AutosegError with the items in work if a worker process is killed.
    """
    count = workers or available_cores()
    if processes:
        count = min(count, _MAX_PROCESSES)
    source = iter(items)
    waiting: deque[tuple[str, Future[B]]] = deque()
    try:
        with _process_pool(count, function) if processes else _thread_pool(count) as pool:
            while True:
                for item in islice(source, count * prefetch - len(waiting)):
                    # A worker started meanwhile inherits the blocked Ctrl-C: no traceback of an interrupted import.
                    with held_signals(signal.SIGINT):
                        waiting.append((name(item), pool.submit(function, item)))
                if not waiting:
                    return
                waiting[0][1].result()
                yield waiting.popleft()[1].result()
    except BrokenProcessPool as error:
        # Workers take items in order: the first unfinished ones were in work.
        unfinished = [name for name, future in waiting if not future.done() or future.exception()][:count]
        raise AutosegError(
            f"a worker process was killed while it worked on {' or '.join(unfinished) or 'nothing'}",
            "most often memory has run out: close other programs, or use a machine with more memory",
        ) from error


@contextmanager
def _thread_pool(count: int) -> Iterator[Executor]:
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _process_pool(count: int, function: Callable[[A], B]) -> Iterator[Executor]:
    context = process_context(getattr(function, "func", function).__module__)
    reader, writer = context.Pipe(duplex=False)
    # The fork server keeps the environment of its own start.
    pool = ProcessPoolExecutor(count, context, _start_worker, (reader, max_pixels()))
    with reader, writer:
        try:
            yield pool
        except BrokenProcessPool:
            writer.close()  # Python before 3.12 waits forever for a worker that was starting when another one was killed.
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def process_context(module: str) -> BaseContext:
    """How worker processes start that run a function of `module`.

    Never by fork: the threads of PyTorch, OpenCV and BLAS do not exist in a forked child, which may deadlock. A fork server is
    a fresh process without threads, and imports the module once for all workers.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([module])
    return context


def set_up_worker(number: int = 0) -> None:
    """Settings of a new worker process: no handling of Ctrl-C, one thread, bounded memory. number: not used."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent receives Ctrl-C too, and ends its workers.
    cv2.setNumThreads(1)
    configure_glibc_malloc(128 << 20)


def _start_worker(parent: Connection, pixels: int) -> None:
    set_max_pixels(pixels)
    set_up_worker()
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: Connection) -> None:
    """End this worker when the other end of the pipe is closed, also because the parent was killed."""
    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)
