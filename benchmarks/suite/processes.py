"""Run a command, and measure processor time and memory, children included.

No heavy imports: for the kernel, the peak memory of a child starts at that of its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Seconds between two looks; of a command that takes many minutes they are further apart, since each costs a few milliseconds.
_EVERY, _SELDOM, _AFTER = 0.1, 1.0, 60.0


@dataclass(frozen=True)
class Ended:
    """A finished command. cpu: seconds of processor time of it and of all its descendants.

    memory: bytes. The largest sum over the process and all its descendants of what each holds, shared pages divided among
    those who share them, seen every 0.1 s, after a minute every second; or the kernel's peak of the largest one alone, where
    that is more.
    """

    code: int
    output: str
    seconds: float
    cpu: float
    memory: int


def run(
    words: Sequence[str],
    variables: Mapping[str, str] | None = None,
    on_line: Callable[[subprocess.Popen[str], str], None] | None = None,
    on_start: Callable[[subprocess.Popen[str]], None] | None = None,
) -> Ended:
    """Run a command; its standard output and errors together are `output`. variables: its environment (default: inherited)."""
    started = time.perf_counter()
    _adopt_orphans()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, start_new_session=True
    )
    watch = _Watch(process.pid)
    lines = []
    assert process.stdout is not None
    try:
        if on_start is not None:
            on_start(process)
        for line in process.stdout:
            lines.append(line)
            if on_line is not None:
                on_line(process, line)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # Ctrl-C does not reach a session of its own.
        os.killpg(process.pid, signal.SIGKILL)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    peak = max(watch.stop(), usage.ru_maxrss * 1024)
    cpu = usage.ru_utime + usage.ru_stime + _of_orphans(process.pid)
    return Ended(process.returncode, "".join(lines), seconds, cpu, peak)


def _adopt_orphans() -> None:
    """Processes that outlive the one that began them become ours (Linux): a fork server, which ends after its command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _of_orphans(group: int) -> float:
    """Seconds of processor time of adopted processes of a group, and of their children; waits for their end."""
    seconds = 0.0
    with suppress(ChildProcessError):
        while True:
            _, _, usage = os.wait4(-group, 0)
            seconds += usage.ru_utime + usage.ru_stime
    return seconds


def must(ended: Ended, what: str) -> Ended:
    """Like `run`; ends the benchmark if the command failed."""
    if ended.code:
        raise SystemExit(f"{what} ended with code {ended.code}:\n{ended.output[-4000:]}")
    return ended


class _Watch:
    """A thread that looks at a process and its descendants until it is stopped. Sees nothing where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = self._looked_at = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        begun = time.monotonic()
        while not self._done.wait(_EVERY if time.monotonic() - begun < _AFTER else _SELDOM):
            family = _family(self._pid)
            # What is held is dear to ask for: at each look it takes a tenth of a short command's time.
            resident = sum(map(_resident, family))
            if resident > 1.05 * self._looked_at:
                self._looked_at = resident
                self._peak = max(self._peak, sum(map(_held, family)))


def _family(root: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # Processes may end meanwhile.
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    processes = [root]
    for pid in processes:
        processes.extend(children.get(pid, ()))
    return processes


def _resident(pid: int) -> int:
    """Bytes, with all shared pages."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _held(pid: int) -> int:
    """Bytes, shared pages divided among those who share them."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
