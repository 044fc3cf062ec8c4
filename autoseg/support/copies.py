"""Copies of this process: they begin at once, see all that it holds, and do not wait for its Python lock."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from autoseg.support.errors import AutosegError
from autoseg.support.process import is_own
from autoseg.support.workers import WATCHING, alone, available_cores

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess  # Windows does not have it.

# What says that the process this one is a copy of only waits for it now; None where it is none, or has been said.
_parent: Connection | None = None


def may_copy() -> bool:
    """Whether a copy is safe: on Linux, in a command's own process, before PyTorch is there and while no other thread runs.

    Only there it is known what ran before: libraries whose threads a copy does not have may wait for them for ever.
    """
    return sys.platform == "linux" and is_own() and "torch" not in sys.modules and alone()


def started(work: Callable[..., None], pipe: Connection, *more: Any) -> ForkProcess | None:
    """A copy that does `work(pipe, *more)`; None where there is no room for another process. For the main thread."""
    context = multiprocessing.get_context("fork")
    handler = signal.getsignal(signal.SIGINT)
    process: ForkProcess | None = None
    try:
        with _interrupts_wait() as came, warnings.catch_warnings(), no_opencv_threads():
            # It warns of threads that are not Python's: those of the BLAS, which begins anew in a copy.
            warnings.simplefilter("ignore", DeprecationWarning)
            # No daemon: it may have copies itself, which daemons may not. Whoever starts one ends it.
            process = context.Process(target=_copied, args=(came, handler, work, pipe, *more))
            process.start()
    except OSError:
        return None
    except KeyboardInterrupt:
        if process is not None and process.pid is not None:
            end(process, 0)
        raise
    return process


def _copied(came: list[int], handler: Any, work: Callable[..., None], *arguments: Any) -> None:
    """What a copy does. came: interrupts while it was made, of it or of the process it comes from."""
    with suppress(KeyboardInterrupt):  # The process it was begun by is interrupted too, and says so.
        signal.signal(signal.SIGINT, handler)
        if not came:
            work(*arguments)


@contextmanager
def _interrupts_wait() -> Iterator[list[int]]:
    """Ctrl-C comes after the block: Python loses one that comes in the midst of copying. Gives those that came."""
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def no_opencv_threads() -> Iterator[None]:
    """Where images are worked on side by side they would get in the way, and a copy, which has none, would wait for them."""
    cv2 = sys.modules.get("cv2")
    if cv2 is None:
        yield
        return
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def answer(pipe: Connection, work: Callable[[], object]) -> None:
    """What a copy says of a piece of work, for `received`, while somebody listens."""
    told: tuple[bool, object]
    try:
        told = (True, work())
    except AutosegError as error:
        told = (False, error)
    with suppress(BrokenPipeError, ConnectionResetError):
        pipe.send(told)


def live_with_parent(waits: Connection) -> None:
    """End this copy, whatever it does, with the process that began it. waits: tells, or ends, when that only waits for it."""
    global _parent
    _parent = waits
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name=WATCHING, daemon=True).start()


def free_cores() -> int:
    """Cores for this process and its copies: all, but for one that its parent may be using."""
    global _parent
    if _parent is not None and _parent.poll():
        _parent = None
    return available_cores() - (_parent is not None)


def received(pipe: Connection, process: ForkProcess) -> Any:
    """The next answer of a copy: what its work gave, or its AutosegError raised.

    Raises AutosegError where the copy was ended by a signal, and RuntimeError where it failed otherwise.
    """
    try:
        done, found = pipe.recv()
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


def end(process: ForkProcess, patience: float = 1) -> None:
    """Wait for one that is done; one that is not, after `patience` seconds, may first take away what it left half-written."""
    process.join(patience)
    if process.exitcode is None:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        process.join(5)
    process.kill()
    process.join()
