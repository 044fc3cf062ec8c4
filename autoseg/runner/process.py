"""A run as a process of its own, on this machine: started, asked to stop, and gone with whoever started it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.support.workspace import environment_with

_TAIL = 4000


def start(command: Sequence[str], log: Path, variables: Mapping[str, str], tied: bool = False) -> subprocess.Popen[bytes]:
    """The process, whose output is added to `log`. tied: on Linux it is asked to stop when the one that started it dies.

    It gets a process group of its own, so that a Ctrl-C meant for the grid reaches it once, through the grid.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    bound = tied and sys.platform.startswith("linux")
    launcher = [sys.executable, "-c", _TIED, *command] if bound else list(command)
    with log.open("ab") as stream:
        return subprocess.Popen(
            launcher, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment_with(variables),
        )  # fmt: skip


def run_to_end(command: Sequence[str], log: str, variables: Mapping[str, str]) -> tuple[int, str]:
    """What another machine does for the grid: the process's exit code, and the machine's name."""
    return start(command, Path(log), variables, tied=True).wait(), socket.gethostname()


def last_error_line(log: Path) -> str:
    """What a process that failed said in the end: its error message, else its last line."""
    try:
        text = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    faults = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if faults:
        return " ".join(lines[faults[-1] :]).removeprefix("error: ")[:400]
    return lines[-1][:400] if lines else ""


# Becomes the command after asking the kernel for SIGTERM when the parent dies; the request outlives the change of program.
_TIED = """
import ctypes, os, signal, sys
parent = os.getppid()
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    raise SystemExit(143)
os.execv(sys.argv[1], sys.argv[1:])
"""
