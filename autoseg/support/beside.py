"""A piece of work in a process of its own, while this one gets on with something else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, TypeVar

from autoseg.support.errors import AutosegError
from autoseg.support.workers import available_cores

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess  # Windows does not have it.

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Begins `work` in a copy of this process; the block gets a function that waits for its result, to be called once.

    That gives what `work` gave, or raises its AutosegError; both come by pickle, and nothing else that the copy changes in
    memory comes at all. The copy ends with the block, and with this process. Where a process cannot be copied safely, because
    threads are running or the system is no Linux, where there is no room for it, and where there is one core, `work` is done
    here when it is asked for.

    Raises AutosegError where the copy is ended by a signal, and RuntimeError where it fails otherwise.
    """
    if sys.platform != "linux" or threading.active_count() > 1 or available_cores() == 1:
        yield work
        return
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, sender), daemon=True)
    with receiver:
        with sender:
            started = _started(process)
        if not started:
            yield work
            return
        try:
            yield lambda: _received(receiver, process)
        finally:
            _end(process)


def _started(process: ForkProcess) -> bool:
    """Whether there was room for another process."""
    with warnings.catch_warnings():
        # It warns of threads that are not Python's: those of the BLAS, which begins anew in a copy.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            process.start()
        except OSError:
            return False
    return True


def _answer(work: Callable[[], T], sender: Connection) -> None:
    """What the copy does."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        sender.send((True, work()))
    except AutosegError as error:
        sender.send((False, error))
    except KeyboardInterrupt:
        return  # The process it was begun by is interrupted too, and says so.


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _received(receiver: Connection, process: ForkProcess) -> Any:
    try:
        done, found = receiver.recv()
    except (EOFError, OSError):  # The latter in the midst of a message.
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            raise AutosegError(
                f"a process begun by this one was ended by {signal.Signals(-process.exitcode).name}",
                "most often memory has run out: close other programs, or use a machine with more of it",
            ) from None
        raise RuntimeError("a process begun by this one failed: its own message stands above") from None
    if done:
        return found
    raise found


def _end(process: ForkProcess) -> None:
    """Wait for one that is done; one that is not may first take away what it left half-written."""
    process.join(1)
    if process.exitcode is None:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        process.join(5)
    process.kill()
    process.join()
