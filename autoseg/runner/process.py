"""Starts a job as a process of this machine."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import environment_with

_TAIL = 1 << 16  # bytes
_LONGEST = 400  # characters
# What torchrun puts before each line of one of several processes.
_RANK = re.compile(r"^\[rank\d+\]:\s?")


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


def last_error_line(log: Path, start: int = 0) -> str:
    """The message of the last error in a log: of autoseg, else of a traceback; else the last line. start: where to begin.

    torchrun's own traceback, which follows that of a dead process, is passed over.
    """
    try:
        content = log.read_bytes()
    except OSError:
        return ""
    start = start if start <= len(content) else 0  # The log was begun anew.
    text = content[max(start, len(content) - _TAIL) :].decode("utf-8", "replace")
    lines = [_RANK.sub("", line).rstrip() for line in text.splitlines() if line.strip()]
    message = ""
    for number, line in enumerate(lines):
        after = list(takewhile(lambda line: line[:1].isspace(), lines[number + 1 :]))
        if line.startswith("error: "):
            message = " ".join([line.removeprefix("error: "), *(part.strip() for part in after)])
        elif line.startswith("Traceback ") and number + 1 + len(after) < len(lines):
            raised = lines[number + 1 + len(after)]
            message = message if message and raised.startswith("torch.distributed.elastic.") else raised
    return (message or (lines[-1].strip() if lines else ""))[:_LONGEST]


# Asks the kernel for SIGTERM when the parent dies, then becomes the command; exec keeps the request.
_STOP_WITH_PARENT = """
import ctypes, os, signal, sys
parent = os.getppid()
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    raise SystemExit(143)
os.execv(sys.argv[1], sys.argv[1:])
"""
