"""Jobs on a Ray cluster, an existing one or a local one. All nodes need autoseg and the same root folder."""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.runner.engine import Outcome
from autoseg.runner.process import run_to_end
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import set_variable, variable

_LOST = "the worker or its machine was lost"
_ADDRESS = "RAY_ADDRESS"
# Ray itself asks for minutes without a word.
_ANSWER_SECONDS = 5.0
# What HTTP/2, which gRPC and so Ray speak, begins with: the client's preface and an empty SETTINGS frame.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEADER, _SETTINGS = 9, 4  # bytes; type of the frame that the server begins with


def check_cluster(address: str | None) -> str | None:
    """The address of the cluster to use: the given one, else that of RAY_ADDRESS; None to start one.

    Raises AutosegError if nothing there answers within five seconds. Does not import Ray.
    """
    given = address or variable(_ADDRESS)
    if not given or given == "local":
        return None
    place = _current_cluster() if given == "auto" else given
    scheme, _, rest = place.rpartition("://")
    if scheme in ("", "ray") and place:
        host, _, port = rest.rpartition(":")
        by_variable = not address or (address == "auto" and bool(variable(_ADDRESS)))
        source = f" (from the variable {_ADDRESS})" if by_variable else f" (from --address {given})"
        if not host or not port.isdecimal():
            raise AutosegError(f"{place} is no address of a Ray cluster{source}", "give host:port, for example 10.0.0.1:6379")
        problem = _no_answer(host.strip("[]"), int(port))
        if problem:
            remedy = f"unset or correct {_ADDRESS}, or give another --address" if by_variable else "correct --address"
            raise AutosegError(
                f"no Ray cluster answers at {place}{source}: {problem}", f"start one there with ray start --head, or {remedy}"
            )
    return given


def _current_cluster() -> str:
    """What "auto" means: RAY_ADDRESS, else the cluster that `ray start` noted on this machine; "" if Ray shall find out."""
    noted = Path(variable("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        return variable(_ADDRESS) or noted.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _no_answer(host: str, port: int) -> str:
    """Why a server is not one of Ray's, "" if it answers as one."""
    problems: list[str] = []
    # In a thread: the look-up of a name has no time limit.
    thread = threading.Thread(target=lambda: problems.append(_probe(host, port)), daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return problems[0] if problems else f"no answer within {_ANSWER_SECONDS:g} seconds"


def _probe(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), _ANSWER_SECONDS) as connection:
            if variable("RAY_USE_TLS").lower() in ("1", "true"):
                return ""
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < _FRAME_HEADER and (part := connection.recv(_FRAME_HEADER - len(answer))):
                answer += part
    except TimeoutError:
        return f"no answer within {_ANSWER_SECONDS:g} seconds"
    except OSError as error:
        return error.strerror or str(error)
    return "" if len(answer) == _FRAME_HEADER and answer[3] == _SETTINGS else "another program answers there"


class RayEngine:
    """address: of a running cluster, None: see `check_cluster`; without any, a local one is started for this call. workers:
    maximum number of jobs at a time.

    A job takes one core, or `gpus_per_run` GPUs, and sees only these GPUs. Raises AutosegError if Ray is not installed,
    cannot be reached, or has too few GPUs.
    """

    name = "ray"

    def __init__(self, address: str | None = None, workers: int | None = None, gpus_per_run: int = 0) -> None:
        address = check_cluster(address)
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
        except Exception as error:  # Ray raises many kinds, depending on what is missing.
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            where = f"the Ray cluster at {address} cannot be used" if address else "Ray cannot be started on this machine"
            raise AutosegError(f"{where}: {reason}", "check it with ray status, or use --engine local") from error
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
