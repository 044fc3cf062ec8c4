"""Graceful shutdown: on the first Ctrl-C or SIGTERM the run writes a checkpoint and exits; the second one exits at once.

Only the commands catch signals. In other programs signals keep their handlers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TERMINATED = 128 + signal.SIGTERM


class StopRequest:
    """requested: the received signal, None before there is one."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None

    def exit(self) -> NoReturn:
        """Raise KeyboardInterrupt after Ctrl-C, else SystemExit(143)."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(_TERMINATED)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self.requested is not None
        self.requested = signal.Signals(number)
        if repeated:
            self.exit()


@contextmanager
def graceful_shutdown(handle_signals: bool) -> Iterator[StopRequest]:
    """Catch signals while the block runs, if `handle_signals`. Outside the main thread signals cannot be caught."""
    request = StopRequest()
    if not handle_signals or threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.signal(number, request._handle) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            # None: the handler was not set from Python, so it cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
