"""Alternating runs of all sides of a stage: medians, ratios, targets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.suite import processes
from benchmarks.suite.stages import BARE, FEW, NNUNET, OURS, Side, Stage

CPU, WALL, MEMORY = "cpu", "wall", "memory"


@dataclass(frozen=True)
class Run:
    """Cost of one run: seconds of processor time and wall-clock time, peak memory in bytes."""

    cpu: float
    wall: float
    memory: int


Runs = dict[str, list[Run]]


def measure(stage: Stage, pairs: int, say: Callable[[str], None]) -> Iterator[Runs]:
    """Repeat: one run of each side. A failed run ends the benchmark with its output."""
    for number in range(pairs):
        runs: Runs = {}
        for name, side in stage.sides.items():
            one = once(name, side)
            runs[name] = [one]
            say(f"  {number + 1}/{pairs} {name:17s} {one.cpu:8.3f} cpu  {one.wall:8.3f} wall  {one.memory / 2**20:6.0f} MiB")
        yield runs


def joined(known: dict[str, list[dict[str, float]]], runs: Runs) -> Runs:
    """Earlier runs from performance.json, followed by new ones."""
    before = {name: [Run(one[CPU], one[WALL], int(one[MEMORY])) for one in taken] for name, taken in known.items()}
    return {name: [*before.get(name, ()), *taken] for name, taken in runs.items()}


def once(name: str, side: Side) -> Run:
    for path in side.clear:
        shutil.rmtree(path, ignore_errors=True)
    ended = processes.must(processes.run(side.words, side.environment), f"{name}: {' '.join(side.words)}")
    if not side.reports:
        return Run(ended.cpu, ended.seconds, ended.memory)
    costs = json.loads(ended.output.splitlines()[-1])
    return Run(costs[CPU], costs[WALL], ended.memory)


def summary(stage: Stage, runs: Runs) -> dict[str, Any]:
    """Medians of each side, ratios to nnU-Net per pair, ratio to the bare passes without start-up; and all runs."""
    medians = {
        name: {key: median(getattr(one, key) for one in taken) for key in (CPU, WALL, MEMORY)} for name, taken in runs.items()
    }
    ratios = {key: _ratio(runs, key, NNUNET, OURS) for key in (CPU, WALL, MEMORY)}
    bare = None if stage.above is None else _times_bare(runs)
    return {
        "title": stage.title,
        "per": stage.per,
        "note": stage.note,
        "pairs": len(runs[OURS]),
        "medians": medians,
        "times_cheaper": ratios,
        "times_bare": bare,
        "targets": {"times_cheaper": stage.against, "times_bare": stage.above},
        "met": {
            "times_cheaper": ratios[CPU] >= stage.against,
            "times_bare": None if bare is None or stage.above is None else bare <= stage.above,
        },
        "runs": {name: [asdict(one) for one in taken] for name, taken in runs.items()},
    }


def _ratio(runs: Runs, key: str, above: str, below: str) -> float:
    return median(getattr(one, key) / getattr(other, key) for one, other in zip(runs[above], runs[below], strict=True))


def _times_bare(runs: Runs) -> float:
    return median(_beyond(runs, OURS, place) / _beyond(runs, BARE, place) for place in range(len(runs[OURS])))


def _beyond(runs: Runs, name: str, place: int) -> float:
    """Processor seconds of a run, minus those of the same command on few images if measured."""
    few = runs.get(name + FEW)
    return runs[name][place].cpu - (few[place].cpu if few else 0.0)
