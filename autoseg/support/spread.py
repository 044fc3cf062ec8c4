"""The same work on many cases, in copies of this process.

Where a case takes milliseconds, most of them in Python's own steps and in calls that keep its lock, threads wait for each
other; copies do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Generic, TypeVar

from autoseg.support.copies import answer, end, free_cores, may_copy, no_opencv_threads, received, started
from autoseg.support.errors import AutosegError
from autoseg.support.workers import available_cores, ordered_map

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

A = TypeVar("A")
B = TypeVar("B")
Begin = Callable[[int], Callable[[A], B]]
_AHEAD = 2  # items a copy has at once: the next one waits for it
_UNREAD = 8  # results for each process that may wait for an earlier one
_WORTH = 2  # items for which a copy is begun


def spread(begin: Begin[A, B], items: Iterable[A], total: int, workers: int | None = None) -> Iterator[B]:
    """What `begin(number)` gives for each of `total` items, in order.

    number: 0 in this process, 1 and on in its copies, each of which begins once. As many processes work as there are cores,
    less one while the process that this one is a copy of needs it. Items and results go by pickle, and nothing else that a copy
    changes in memory is seen here. Where this process cannot be copied safely (see `copies.may_copy`) threads work in it.

    An AutosegError is raised here when its turn comes. Copies end with the last result, with the caller's block and with this
    process. Raises AutosegError where a copy is ended by a signal, and RuntimeError where it fails otherwise.
    """
    processes = min(workers or available_cores(), total // _WORTH + 1)
    if processes < 2 or not may_copy():
        with no_opencv_threads():
            yield from ordered_map(begin(0), items, workers, here=True)
        return
    with no_opencv_threads(), _begun(begin, processes - 1) as copies:
        yield from _dealt(copies, begin(0), items)


class _Copy(Generic[A, B]):
    """A copy that is at work; what it has been given and has not answered yet."""

    def __init__(self, pipe: Connection, process: ForkProcess) -> None:
        self.pipe = pipe
        self.process = process
        self.given: deque[Future[B]] = deque()

    def give(self, item: A) -> Future[B]:
        self.given.append(Future())
        # One that has ended says so when its answer is asked for.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(item)
        return self.given[-1]

    def take(self) -> None:
        """Its next answer, which must be there or come."""
        future = self.given.popleft()
        try:
            future.set_result(received(self.pipe, self.process))
        except AutosegError as error:
            future.set_exception(error)


@contextmanager
def _begun(begin: Begin[A, B], wanted: int) -> Iterator[list[_Copy[A, B]]]:
    """So many copies, less those there is no room for; they end with the block.

    All begin before this process has done anything that leaves threads of some library, which they would not have.
    """
    copies: list[_Copy[A, B]] = []
    try:
        for number in range(1, wanted + 1):
            here, there = Pipe()
            with there:
                # A copy that held the others' ends, and its own, would not hear of this process's end.
                process = started(_serve, there, begin, number, [*(copy.pipe for copy in copies), here])
            if process is None:
                here.close()
                break
            copies.append(_Copy(here, process))
        yield copies
    finally:
        for copy in copies:
            copy.pipe.close()
        for copy in copies:
            end(copy.process, 0.1 if copy.given else 1)


def _serve(pipe: Connection, begin: Begin[A, B], number: int, others: list[Connection]) -> None:
    """What a copy does, until nobody is at the other end."""
    for other in others:
        other.close()
    function = begin(number)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        answer(pipe, partial(function, item))


def _dealt(copies: list[_Copy[A, B]], function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Results in order. This process works too, while the next one is not there."""
    source = ((item,) for item in items)
    waiting: deque[Future[B]] = deque()

    def next_item() -> tuple[A] | None:
        return next(source, None) if len(waiting) < _UNREAD * (len(copies) + 1) else None

    def hand_out() -> None:
        for depth in range(_AHEAD):
            for copy in copies[: free_cores() - 1]:
                if len(copy.given) == depth and (item := next_item()) is not None:
                    waiting.append(copy.give(*item))

    while True:
        hand_out()
        if waiting and waiting[0].done():
            yield waiting.popleft().result()
        elif (item := next_item()) is not None:
            waiting.append(_done(function, *item))
        elif waiting:
            _take(copies, None)
        else:
            return
        _take(copies, 0)


def _take(copies: list[_Copy[A, B]], seconds: float | None) -> None:
    """The answers that come within so many seconds; None: at least one."""
    busy: dict[object, _Copy[A, B]] = {copy.pipe: copy for copy in copies if copy.given}
    for pipe in wait([copy.pipe for copy in busy.values()], seconds) if busy else ():
        busy[pipe].take()


def _done(function: Callable[[A], B], item: A) -> Future[B]:
    future: Future[B] = Future()
    try:
        future.set_result(function(item))
    except AutosegError as error:
        future.set_exception(error)
    return future
