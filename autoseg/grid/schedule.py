"""The loop that runs a grid: starts what may start, starts again what died, and keeps the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoseg.grid import table
from autoseg.grid.cells import Asked, command_of, folder_of, is_done, log_of, prediction_cells, refreshed
from autoseg.grid.engine import Engine, Job, Outcome
from autoseg.grid.process import last_words
from autoseg.planning.overrides import apply_overrides
from autoseg.schema.grid import Cell, CellRow, GridTable
from autoseg.schema.plan import Plan
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import search
from autoseg.training.lock import holder_of, holding
from autoseg.training.stopping import StopRequest, stoppable

logger = logging.getLogger(__name__)

Watch = Callable[[GridTable], None]
# The exit code of a mistake of the user's, which another attempt would make again.
_MISTAKE = 2
_WITHIN = 0.2
# Seconds between two looks at what running cells have come to, and at folders others hold.
_LOOK = 2.0


def run_grid(
    cells: Sequence[Cell],
    asked: Asked,
    engine: Engine,
    *,
    retries: int = 2,
    watch: Watch = lambda table: None,
    handle_signals: bool = False,
) -> GridTable:
    """Run the cells that are not done, then predict test images with each model whose folds all are; the final table.

    retries: how often a run that died is started again, from its checkpoint; one that ended with a message for the user is
    not. watch: called with the table now and then. Interrupted, the runs are stopped, and write checkpoints first.
    handle_signals: for commands: SIGTERM interrupts too (SystemExit), and Ctrl-C waits for the end of a look at the runs.
    Raises AutosegError where another grid runs under this root.
    """
    with holding(table.path_of(asked.root).with_suffix(".driver")), stoppable(handle_signals) as stop:
        grid = _Grid(asked, engine, retries, watch, stop)
        try:
            grid.run(cells)
            grid.run([cell for cell in prediction_cells(asked.root, cells) if grid.complete(cell)])
        except BaseException:
            grid.stop_runs()
            raise
        finally:
            engine.close()
            final = grid.close()
        return final


@dataclass
class _Running:
    job: Job
    began: float


class _Grid:
    def __init__(self, asked: Asked, engine: Engine, retries: int, watch: Watch, stop: StopRequest) -> None:
        self._asked = asked
        self._engine = engine
        self._retries = retries
        self._watch = watch
        self._stop = stop
        self._stopped = False
        self._rows: dict[Cell, CellRow] = {}
        self._jobs: dict[Cell, _Running] = {}
        self._plans: dict[str, Plan] = {}
        self._looked = 0.0

    def run(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            done = is_done(self._asked.root, cell)
            self._rows[cell] = refreshed(self._asked.root, CellRow(cell=cell, state="done" if done else "waiting"))
        self._tell()
        while any(row.state in ("waiting", "running") for row in self._rows.values()):
            changed = [self._ended(cell) for cell in list(self._jobs)]
            changed += [self._start(cell) for cell in self._startable()]
            if any(changed) or time.monotonic() - self._looked > _LOOK:
                self._tell()
            if self._stop.requested:
                self._stop.obey()
            time.sleep(_WITHIN)

    def complete(self, prediction: Cell) -> bool:
        """Whether all folds of the model that are in the grid are done."""
        mine = [row for cell, row in self._rows.items() if (cell.dataset, cell.model) == (prediction.dataset, prediction.model)]
        return all(row.state == "done" for row in mine)

    def close(self) -> GridTable:
        """What was under way waits for the next grid."""
        for cell in list(self._jobs):
            if not self._ended(cell):
                self._rows[cell] = replace(self._rows[cell], state="waiting", where="", message="stopped")
        return self._tell()

    def _tell(self) -> GridTable:
        self._looked = time.monotonic()
        for cell, running in self._jobs.items():
            row = replace(self._rows[cell], where=running.job.where)
            self._rows[cell] = refreshed(self._asked.root, row)
        told = table.write(self._asked.root, self._engine.name, self._rows.values())
        self._watch(told)
        return told

    def _startable(self) -> list[Cell]:
        """As many waiting cells as there are free slots, first come first."""
        free = self._engine.slots() - len(self._jobs)
        chosen: list[Cell] = []
        for cell, row in self._rows.items():
            if len(chosen) >= free or self._stop.requested:
                break
            if row.state == "waiting" and not self._must_wait(cell, chosen):
                chosen.append(cell)
        return chosen

    def _must_wait(self, cell: Cell, chosen: Sequence[Cell]) -> bool:
        """For the model's learning rate, which its first run searches for; or for somebody else who works on the folder."""
        if cell.predicts:
            return False
        dataset = Dataset(self._asked.root, cell.dataset)
        others = [other for other in (*self._jobs, *chosen) if (other.dataset, other.model) == (cell.dataset, cell.model)]
        if others and search.wanted(self._plan(dataset), cell.model) and search.found(dataset, cell.model) is None:
            return True
        holder = holder_of(folder_of(self._asked.root, cell))
        message = f"held by process {holder.pid} on {holder.host}" if holder else ""
        self._rows[cell] = replace(self._rows[cell], message=message)
        return holder is not None

    def _plan(self, dataset: Dataset) -> Plan:
        if dataset.name not in self._plans:
            plan = read_artefact(dataset.plan, Plan)
            self._plans[dataset.name] = apply_overrides(plan, self._asked.settings or {})
        return self._plans[dataset.name]

    def _start(self, cell: Cell) -> bool:
        job = self._engine.start(command_of(cell, self._asked), log_of(self._asked.root, cell))
        self._jobs[cell] = _Running(job, time.monotonic())
        row = self._rows[cell]
        self._rows[cell] = replace(row, state="running", attempts=row.attempts + 1, where=job.where, message="")
        return True

    def _ended(self, cell: Cell) -> bool:
        """Take note if a cell's process has ended."""
        running = self._jobs[cell]
        outcome = running.job.poll()
        if outcome is None:
            return False
        del self._jobs[cell]
        row = refreshed(self._asked.root, self._rows[cell])
        row = replace(row, seconds=row.seconds + time.monotonic() - running.began, where=outcome.where or running.job.where)
        self._rows[cell] = self._judged(row, outcome)
        return True

    def _judged(self, row: CellRow, outcome: Outcome) -> CellRow:
        cell = row.cell
        if outcome.code == 0 and is_done(self._asked.root, cell):
            logger.info(f"{_title(cell)}: done" + ("" if cell.predicts else f", best Dice {row.best_dice:.3f}"))
            return replace(row, state="done", message="")
        words = outcome.message or last_words(log_of(self._asked.root, cell))
        if self._stopped:
            return replace(row, state="waiting", message="stopped")
        how = "lost with its machine" if outcome.code is None else f"ended with code {outcome.code}"
        if outcome.code != _MISTAKE and row.attempts <= self._retries:
            logger.warning(f"{_title(cell)} {how}: it is started again ({words})")
            return replace(row, state="waiting", message=f"{how}; to be started again")
        logger.warning(f"{_title(cell)} failed: {words}")
        return replace(row, state="failed", message=words or how)

    def stop_runs(self) -> None:
        self._stopped = True
        logger.info(f"stopping {len(self._jobs)} runs, which write their checkpoints first")
        for running in self._jobs.values():
            running.job.stop()


def _title(cell: Cell) -> str:
    return f"{cell.dataset}, {cell.model}, {'test images' if cell.predicts else f'fold {cell.fold}'}"

