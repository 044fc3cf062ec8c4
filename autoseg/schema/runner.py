"""The state of a grid of runs: `results/grid.json`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import Count, FileName, NonNegative, PathBelowOrNone, ShareResult, Within

JobState = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, order=True)
class Job:
    """One run of the grid: a fold of a model of a dataset. fold -1: prediction of the test images with all folds.

    trial: "", or the folder below the dataset's results that holds the plan and the splits of the run, and gets its results.
    """

    dataset: FileName
    model: FileName
    fold: Annotated[int, Within(-1, 2**20)]
    trial: PathBelowOrNone = ""

    @property
    def predicts(self) -> bool:
        return self.fold < 0


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """State of a job. where: the machine or cluster job that runs it. attempts: number of starts by this grid.

    epochs_done, epochs_planned, micro_dice: of its run.json. seconds: of the attempts so far. message: why it waits or failed.
    """

    job: Job
    state: JobState
    where: str = ""
    attempts: Count = 0
    seconds: NonNegative = 0.0
    epochs_done: Count = 0
    epochs_planned: Count = 0
    micro_dice: ShareResult = math.nan
    message: str = ""


def _cells_to_jobs(content: Content) -> Content:
    for row in content["rows"]:
        rename(row, "cell", "job")
    return content


def _without_class_means(content: Content) -> Content:
    """Class means were stored, which are no micro averages; `autoseg_run --status` reads those of the runs."""
    for row in content["rows"]:
        row.pop("best_dice", None)
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class GridTable(Artefact, Tabular):
    """`results/grid.json`. engine: what runs the jobs. host, pid: of the runner's process. updated: UTC, ISO 8601."""

    NAME = "grid"
    VERSION = 3
    MIGRATIONS = (_cells_to_jobs, _without_class_means)

    engine: str
    host: str
    pid: Count
    updated: str
    rows: tuple[JobRow, ...]

    def summary(self) -> str:
        states = Counter(row.state for row in self.rows)
        return f"{count(len(self.rows), 'run')}: {', '.join(f'{number} {state}' for state, number in states.items())}"

    def to_rows(self) -> list[Row]:
        return [fields(row.job) | fields(row, "job") for row in self.rows]
