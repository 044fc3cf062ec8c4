"""A piece of work in a process of its own, while this one gets on with something else."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar

from autoseg.support.copies import answer, end, live_with_parent, may_copy, received, started
from autoseg.support.workers import available_cores

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Begins `work` in a copy of this process; the block gets a function that waits for its result, to be called once.

    That gives what `work` gave, or raises its AutosegError; both come by pickle, and nothing else that the copy changes in
    memory comes at all. The copy ends with the block, and with this process. Where a process cannot be copied safely (see
    `may_copy`), where there is no room for it, and where there is one core, `work` is done here when it is asked for.

    Raises AutosegError where the copy is ended by a signal, and RuntimeError where it fails otherwise.
    """
    if not may_copy() or available_cores() == 1:
        yield work
        return
    receiver, sender = multiprocessing.Pipe(duplex=False)
    told, waits = multiprocessing.Pipe(duplex=False)
    with receiver, waits:
        with sender, told:
            process = started(_work, sender, work, told, waits)
        if process is None:
            yield work
            return

        def result() -> T:
            waits.close()
            found: T = received(receiver, process)
            return found

        try:
            yield result
        finally:
            end(process)


def _work(sender: Connection, work: Callable[[], object], told: Connection, waits: Connection) -> None:
    waits.close()  # Held by the copy too, it would never end.
    live_with_parent(told)
    answer(sender, work)
