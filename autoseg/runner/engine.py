"""Engines start the processes of jobs and report how they ended. They know nothing about training."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoseg.runner.process import start
from autoseg.support.errors import AutosegError
from autoseg.support.parallel import available_cores
from autoseg.support.workspace import VISIBLE_GPUS, visible_gpus

_GRACE = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a process ended. code: exit code, None if its machine was lost. where: the machine, if known."""

    code: int | None
    where: str = ""
    message: str = ""


class JobHandle(Protocol):
    """A running process. where: its machine or cluster job, "" while unknown."""

    where: str

    def poll(self) -> Outcome | None:
        """The outcome, None while it runs."""

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""


class Engine(Protocol):
    """name: as in --engine."""

    name: str

    def slots(self) -> int:
        """How many processes can run at the same time now."""

    def start(self, command: Sequence[str], log: Path) -> JobHandle: ...

    def close(self) -> None: ...


class Local:
    """Runs `workers` processes at a time on this machine. Cores are divided among them; each has its own GPUs.

    gpus: available GPUs. gpus_per_run: GPUs for each process. Raises AutosegError if there are too few.
    """

    name = "local"

    def __init__(self, workers: int | None = None, gpus: int = 0, gpus_per_run: int = 0) -> None:
        if gpus_per_run > gpus:
            raise AutosegError(
                f"each job needs {gpus_per_run} GPU{'s' if gpus_per_run > 1 else ''}, but PyTorch finds {gpus} on this machine",
                "lower --gpus-per-run, or leave it out to use the CPU",
            )
        max_workers = gpus // gpus_per_run if gpus_per_run else available_cores()
        self._count = workers or (max_workers if gpus_per_run else 1)
        if self._count > max_workers:
            resources = f"{gpus} GPUs" if gpus_per_run else f"{max_workers} cores"
            raise AutosegError(
                f"{self._count} jobs at a time are too many for {resources}", f"--workers {max_workers} or fewer"
            )
        self._gpus_per_run = gpus_per_run
        self._running: dict[int, LocalHandle] = {}

    def slots(self) -> int:
        return self._count

    def start(self, command: Sequence[str], log: Path) -> LocalHandle:
        slot = next(slot for slot in range(self._count) if slot not in self._running or self._running[slot].ended)
        self._running[slot] = LocalHandle(start(command, log, self._environment(slot)))
        return self._running[slot]

    def close(self) -> None:
        for handle in self._running.values():
            handle.stop()
        for handle in self._running.values():
            handle.wait()

    def _environment(self, slot: int) -> Mapping[str, str]:
        variables = {}
        if self._count > 1:
            variables["OMP_NUM_THREADS"] = str(max(1, available_cores() // self._count))
        if self._gpus_per_run:
            first = slot * self._gpus_per_run
            gpus = visible_gpus() or [str(number) for number in range(first + self._gpus_per_run)]
            variables[VISIBLE_GPUS] = ",".join(gpus[first : first + self._gpus_per_run])
        return variables


class LocalHandle:
    """A process of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.where = f"{socket.gethostname()} {process.pid}"

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def poll(self) -> Outcome | None:
        code = self._process.poll()
        return None if code is None else Outcome(code, self.where)

    def stop(self) -> None:
        if not self.ended:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for the end; kill the process after two minutes."""
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
