"""The trainings of a race, in their order, and the file that keeps what came of each."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.race.arms import find

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training. set: with the side of its images, as acdc128. minutes: of training."""

    set: str
    arm: str
    minutes: float
    fold: int
    seed: int
    device: str

    @property
    def name(self) -> str:
        """For files and messages."""
        return f"{self.set}-{self.minutes:g}min-{self.device}-seed{self.seed}-fold{self.fold}-{self.arm}"


def plan_jobs(
    sets: Mapping[str, int],
    arms: Sequence[str],
    minutes: Sequence[float],
    folds: Sequence[int],
    seeds: Sequence[int],
    device: str,
) -> list[Job]:
    """All trainings. sets: name -> its number of folds. Only leading arms get more than the first seed.

    Short ones come first, and arms that are compared are neighbours, so that an unfinished race compares something too.
    """  # fmt: skip
    return [
        Job(set=name, arm=arm, minutes=budget, fold=fold, seed=seed, device=device)
        for budget in sorted(minutes)
        for seed in seeds
        for fold in folds
        for name, count in sets.items()
        if fold < count
        for arm in arms
        if seed == seeds[0] or find(arm).leading
    ]


class Store:
    """A JSONL file: one line for each training that ended, with the scores of every held-out case, or with its error.

    Of several lines of one job the last counts. What a killed program left of a line is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def records(self) -> list[Record]:
        if not self._path.exists():
            return []
        *whole, rest = self._path.read_text(encoding="utf-8").split("\n")
        by_job: dict[str, Record] = {}
        for line in [*whole, rest]:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            by_job[Job(**record["job"]).name] = record
        return list(by_job.values())

    def left(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs without scores: new ones, and those that failed."""
        done = {Job(**record["job"]).name for record in self.records() if "cases" in record}
        return [job for job in jobs if job.name not in done]

    def add(self, job: Job, **content: Any) -> None:
        line = json.dumps({"job": asdict(job), **content}, separators=(",", ":")) + "\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as stream:
                if stream.tell():
                    stream.seek(-1, os.SEEK_END)
                    line = line if stream.read(1) == b"\n" else f"\n{line}"
                stream.write(line.encode())
                stream.flush()
                os.fsync(stream.fileno())
