"""Jobs on a Ray cluster, an existing one or a local one. All nodes need autoseg and the same root folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.runner.engine import Outcome
from autoseg.runner.process import run_to_end
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import set_variable

_LOST = "the worker or its machine was lost"


class RayEngine:
    """address: of a running cluster; None starts a local one for this call. workers: maximum number of jobs at a time.

    A job takes one core, or `gpus_per_run` GPUs, and sees only these GPUs. Raises AutosegError if Ray is not installed,
    cannot be reached, or has too few GPUs.
    """

    name = "ray"

    def __init__(self, address: str | None = None, workers: int | None = None, gpus_per_run: int = 0) -> None:
        try:
            # Disable Ray's usage statistics; must be set before the import.
            set_variable("RAY_USAGE_STATS_ENABLED", "0")
            import ray
        except ImportError as error:
            raise AutosegError("Ray is not installed", "pip install 'autoseg[ray]'") from error
        self._ray = ray
        self._workers = workers
        self._gpus = gpus_per_run
        local: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "include_dashboard": False, "num_cpus": workers}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **({} if address else local))
        except ConnectionError as error:
            raise AutosegError(f"no Ray cluster answers at {address}", "start one with: ray start --head") from error
        self._remote = ray.remote(max_retries=0)(run_to_end)
        if self.slots() == 0:
            self.close()
            raise AutosegError(
                f"no node of the cluster has {gpus_per_run or 'a'} {'GPU' if gpus_per_run else 'core'}"
                f"{'s' if gpus_per_run > 1 else ''} for a job",
                "lower --gpus-per-run, or add nodes (ray start --address=...)",
            )

    def slots(self) -> int:
        """How many jobs fit on the nodes that are alive."""
        slots = [self._node_slots(node["Resources"]) for node in self._ray.nodes() if node["Alive"]]
        return min(sum(slots), self._workers or sum(slots))

    def start(self, command: Sequence[str], log: Path) -> RayHandle:
        job_options = self._remote.options(num_cpus=0 if self._gpus else 1, num_gpus=self._gpus)
        variables: Mapping[str, str] = {} if self._gpus else {"OMP_NUM_THREADS": "1"}
        return RayHandle(self._ray, job_options.remote(list(command), str(log), variables))

    def close(self) -> None:
        """Stop a local cluster with all its processes; leave an existing one running."""
        self._ray.shutdown()

    def _node_slots(self, resources: Mapping[str, float]) -> int:
        return int(resources.get("GPU", 0) // self._gpus) if self._gpus else int(resources.get("CPU", 0))


class RayHandle:
    """A process on a node."""

    where = ""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray = ray
        self._reference = reference

    def poll(self) -> Outcome | None:
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            code, where = self._ray.get(self._reference)
        except self._ray.exceptions.RayTaskError as error:
            return Outcome(1, message=str(error.cause))
        except self._ray.exceptions.RayError:
            return Outcome(None, message=_LOST)
        return Outcome(code, where)

    def stop(self) -> None:
        # Ends the worker; the job then gets SIGTERM (stop_with_parent).
        self._ray.cancel(self._reference, force=True)
