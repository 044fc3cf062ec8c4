"""What runs the cells of a grid. An engine starts processes and says how they ended; it knows nothing of training."""

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

_GRACE = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a process ended. code: its exit code, None where it was lost with its machine. where: the machine, if known."""

    code: int | None
    where: str = ""
    message: str = ""


class JobHandle(Protocol):
    """A process under way. where: the machine or job that has it, "" while that is not known."""

    where: str

    def poll(self) -> Outcome | None:
        """How it ended, None while it has not."""

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""


class Engine(Protocol):
    """name: as in --engine."""

    name: str

    def slots(self) -> int:
        """How many processes it can have under way now."""

    def start(self, command: Sequence[str], log: Path) -> JobHandle: ...

    def close(self) -> None: ...


class Local:
    """Processes of this machine, `workers` at a time, each with its share of the cores, and GPUs of its own if asked for.

    gpus: how many there are; gpus_per_run: how many a process gets. Raises AutosegError where there are too few.
    """

    name = "local"

    def __init__(self, workers: int | None = None, gpus: int = 0, gpus_per_run: int = 0) -> None:
        if gpus_per_run > gpus:
            raise AutosegError(
                f"a run is to have {gpus_per_run} GPU{'s' if gpus_per_run > 1 else ''}, but PyTorch sees {gpus} here",
                "lower --gpus-per-run, or leave it out to run on the processor",
            )
        most = gpus // gpus_per_run if gpus_per_run else available_cores()
        self._count = workers or (most if gpus_per_run else 1)
        if self._count > most:
            what = f"{gpus} GPUs" if gpus_per_run else f"{most} cores"
            raise AutosegError(f"{self._count} runs side by side are too many for {what}", f"--workers {most} or fewer")
        self._gpus_per_run = gpus_per_run
        self._running: dict[int, LocalHandle] = {}

    def slots(self) -> int:
        return self._count

    def start(self, command: Sequence[str], log: Path) -> LocalHandle:
        slot = next(slot for slot in range(self._count) if slot not in self._running or self._running[slot].ended)
        self._running[slot] = LocalHandle(start(command, log, self._variables(slot)))
        return self._running[slot]

    def close(self) -> None:
        for handle in self._running.values():
            handle.stop()
        for handle in self._running.values():
            handle.wait()

    def _variables(self, slot: int) -> Mapping[str, str]:
        variables = {}
        if self._count > 1:
            variables["OMP_NUM_THREADS"] = str(max(1, available_cores() // self._count))
        if self._gpus_per_run:
            first = slot * self._gpus_per_run
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(first + number) for number in range(self._gpus_per_run))
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
        """Until it has ended; one that does not within two minutes is killed."""
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
