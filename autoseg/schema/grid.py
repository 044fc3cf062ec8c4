"""The state of a grid of runs, as the table on disk has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from autoseg.schema.artefact import Artefact
from autoseg.schema.frame import Row, Tabular, count, fields

CellState = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, order=True)
class Cell:
    """One run of the grid: a fold of a model of a dataset. fold -1 stands for predicting the test images with all folds."""

    dataset: str
    model: str
    fold: int

    @property
    def predicts(self) -> bool:
        return self.fold < 0


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """Where a cell stands. where: the machine or job that has it. attempts: how often it was started by this grid.

    epochs_done, epochs_planned, best_dice: of its run.json. seconds: of the attempts so far. message: why it waits or failed.
    """

    cell: Cell
    state: CellState
    where: str = ""
    attempts: int = 0
    seconds: float = 0.0
    epochs_done: int = 0
    epochs_planned: int = 0
    best_dice: float = 0.0
    message: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class GridTable(Artefact, Tabular):
    """`results/grid.json`. engine: what runs the cells. host, pid: of the process that drives it. updated: UTC, ISO 8601."""

    NAME = "grid"
    VERSION = 1

    engine: str
    host: str
    pid: int
    updated: str
    rows: tuple[CellRow, ...]

    def summary(self) -> str:
        states = Counter(row.state for row in self.rows)
        return f"{count(len(self.rows), 'run')}: {', '.join(f'{number} {state}' for state, number in states.items())}"

    def to_rows(self) -> list[Row]:
        return [fields(row.cell) | fields(row, "cell") for row in self.rows]
