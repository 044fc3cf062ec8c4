"""What every arm's process needs, whatever Python runs it: request, core, clock, schedule, result. Standard library only."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULT = "result.json"
# nnU-Net's own numbers of iterations an epoch and of epochs.
_MOST_ITERATIONS, _MOST_EPOCHS = 250, 1000
# A shorter schedule has about so many epochs, so that the learning rate falls in small steps.
_EPOCHS = 100
# nnU-Net's planner makes no batch below 2. A batch so large that fewer steps fit becomes smaller.
_LEAST_BATCH, _FEWEST_STEPS = 2, 200


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training and the prediction of its held-out cases.

    raw: the dataset's folder in nnU-Net's raw layout. set_file: see `benchmarks.race.sets`. work: for everything that the arm
    writes. output: for the masks, <case>.png. core: the only one to use, None for any. options: of the arm.
    """

    raw: str
    set_file: str
    work: str
    output: str
    seconds: float
    fold: int
    seed: int
    device: str
    core: int | None
    options: dict[str, Any]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    def folds(self) -> list[dict[str, list[str]]]:
        return json.loads(Path(self.set_file).read_text(encoding="utf-8"))["folds"]  # type: ignore[no-any-return]

    def held_out(self) -> list[str]:
        return self.folds()[self.fold]["val"]

    def image(self, case: str) -> Path:
        return Path(self.raw) / "imagesTr" / f"{case}_0000.png"


def start() -> Request:
    """The request that the first argument names. Pins the process to its core."""
    request = Request(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    if request.core is not None:
        os.sched_setaffinity(0, {request.core})
    Path(request.output).mkdir(parents=True, exist_ok=True)
    return request


def seconds_used(device: str) -> float:
    """Processor seconds of this process and of its children that have ended; on a GPU seconds of the clock."""
    if device != "cpu":
        return time.perf_counter()
    own, children = (resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Phases:
    """Seconds of preparing (with the start of the process), training and prediction."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._last = 0.0 if device == "cpu" else seconds_used(device)
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """What passed since the last call belongs to this phase."""
        now = seconds_used(self._device)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 2)
        self._last = now


def finish(request: Request, phases: Phases, **facts: Any) -> None:
    """Write the result. facts: steps, batch, input, saw (which choices saw held-out cases), versions and others."""
    content = {"seconds": phases.seconds, **facts}
    (Path(request.work) / RESULT).write_text(json.dumps(content, indent=1), encoding="utf-8")


def fit(seconds: float, step: float) -> tuple[int, int]:
    """Epochs and iterations an epoch that fit: about a hundred epochs, of at most 250 iterations. step: seconds of one."""
    steps = max(1, int(seconds / step))
    iterations = min(_MOST_ITERATIONS, max(1, steps // _EPOCHS))
    return min(_MOST_EPOCHS, max(1, steps // iterations)), iterations


def fit_batch(seconds: float, per_image: float, planned: int) -> int:
    """The planned batch, or what is left of it so that 200 steps fit. per_image: seconds of a step for each image."""
    return max(min(_LEAST_BATCH, planned), min(planned, int(seconds / (_FEWEST_STEPS * per_image))))


def fit_again(done: int, used: float, left: float) -> int:
    """Epochs in all, when `done` ones have taken `used` seconds and `left` are left: to the nearest epoch."""
    return min(_MOST_EPOCHS, done + max(0, round(left * done / used)))
