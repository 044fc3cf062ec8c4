"""Starts a job as a process of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import environment_with

_TAIL = 4000


def start(
    command: Sequence[str], log: Path, variables: Mapping[str, str], stop_with_parent: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process that appends its output to `log`. stop_with_parent: on Linux it gets SIGTERM when its parent dies.

    It has its own process group: Ctrl-C reaches only the runner, which then stops the process.
    """
    use_launcher = stop_with_parent and sys.platform.startswith("linux")
    launcher = [sys.executable, "-c", _STOP_WITH_PARENT, *command] if use_launcher else list(command)
    with os_errors_as_autoseg_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("ab")
    with stream:
        return subprocess.Popen(
            launcher, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment_with(variables),
        )  # fmt: skip


def run_to_end(command: Sequence[str], log: str, variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a command on a cluster node. Returns its exit code and the node's name."""
    return start(command, Path(log), variables, stop_with_parent=True).wait(), socket.gethostname()


def last_error_line(log: Path) -> str:
    """The error message at the end of a log, else its last line."""
    try:
        text = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        return " ".join(lines[errors[-1] :]).removeprefix("error: ")[:400]
    return lines[-1][:400] if lines else ""


# Asks the kernel for SIGTERM when the parent dies, then becomes the command; exec keeps the request.
_STOP_WITH_PARENT = """
import ctypes, os, signal, sys
parent = os.getppid()
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    raise SystemExit(143)
os.execv(sys.argv[1], sys.argv[1:])
"""
