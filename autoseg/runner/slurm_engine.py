"""Jobs on a Slurm cluster, through submitit. All nodes need autoseg and the same root folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.runner.engine import Outcome
from autoseg.runner.process import run_to_end
from autoseg.support.errors import AutosegError

# Default limit of jobs in Slurm's queue (--workers changes it).
_MAX_QUEUED = 64
_ENDED_BADLY = "the job ended without a result (time limit, memory, or its node was lost)"


class SlurmEngine:
    """folder: for submitit's own files, which all nodes must see. parameters: submitit's (slurm_partition, timeout_min, ...).

    cluster: "slurm", or "local" to run the jobs as local processes. Raises AutosegError if submitit is not installed or
    rejects a parameter.
    """

    name = "slurm"

    def __init__(
        self,
        folder: Path,
        workers: int | None = None,
        gpus_per_run: int = 0,
        parameters: Mapping[str, str] | None = None,
        cluster: str = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise AutosegError("submitit is not installed", "pip install 'autoseg[slurm]'") from error
        self._workers = workers or _MAX_QUEUED
        settings: dict[str, Any] = {"gpus_per_node": gpus_per_run} if gpus_per_run else {}
        settings |= {key: int(value) if value.isdigit() else value for key, value in (parameters or {}).items()}
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(name="autoseg", **settings)
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise AutosegError(f"Slurm cannot be used: {error}", "check --slurm, or run on a machine with sbatch") from error

    def slots(self) -> int:
        return self._workers

    def start(self, command: Sequence[str], log: Path) -> SlurmHandle:
        return SlurmHandle(self._executor.submit(run_to_end, list(command), str(log), {}))

    def close(self) -> None:
        """Nothing to do: stopped jobs end by themselves."""


class SlurmHandle:
    """A job of the cluster."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.where = f"job {handle.job_id}"

    def poll(self) -> Outcome | None:
        if not self._handle.done():
            return None
        if self._handle.exception() is not None:
            return Outcome(None, self.where, _ENDED_BADLY)
        code, where = self._handle.result()
        return Outcome(code, where)

    def stop(self) -> None:
        self._handle.cancel()
