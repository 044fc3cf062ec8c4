"""Being asked to stop: the first Ctrl-C or SIGTERM lets the run write a checkpoint, the second one is obeyed at once.

Only commands listen for signals: in somebody else's program they belong to that program.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TERMINATED = 128 + signal.SIGTERM


class StopRequest:
    """requested: the signal that asked, None while nobody did."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None

    def obey(self) -> None:
        """Leave the program the way it was asked to: KeyboardInterrupt for Ctrl-C, else SystemExit(143)."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(_TERMINATED)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again = self.requested is not None
        self.requested = signal.Signals(number)
        if again:
            self.obey()


@contextmanager
def graceful_shutdown(handle_signals: bool) -> Iterator[StopRequest]:
    """Listen while the block runs; without `handle_signals` nothing is ever requested.

    Outside the main thread signals cannot be caught, and nothing changes.
    """
    request = StopRequest()
    if not handle_signals or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._ask) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not set from Python, which cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
