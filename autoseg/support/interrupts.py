"""Holds back Ctrl-C and SIGTERM while something must not be cut short: the writing of a file, the start of a process."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals(*signals: signal.Signals) -> Iterator[None]:
    """Hold back signals (default: Ctrl-C and SIGTERM) until the end of the block; their handlers then run, once for each time.

    A process started meanwhile inherits the blocked signals. Outside the main thread handlers do not run, and need no holding.
    """
    if sys.platform == "win32":
        yield
        return
    numbers = signals or STOP_SIGNALS
    received: list[tuple[int, FrameType | None]] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        # The mask holds for this thread only: another one may receive the signal, and Python then calls the handler here.
        handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: received.append((number, frame)))
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received_number, frame in received:
            handlers[signal.Signals(received_number)](received_number, frame)
