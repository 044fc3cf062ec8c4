"""The loop that runs a grid: starts what may start, starts again what died, and keeps the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoseg.planning.overrides import apply_overrides
from autoseg.runner import table
from autoseg.runner.engine import Engine, JobHandle, Outcome
from autoseg.runner.jobs import JobOptions, command_of, folder_of, is_done, log_of, prediction_jobs, refreshed
from autoseg.runner.process import last_error_line
from autoseg.schema.plan import Plan
from autoseg.schema.runner import GridTable, Job, JobRow
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import lr_search
from autoseg.training.graceful_shutdown import StopRequest, graceful_shutdown
from autoseg.training.run_lock import lock_owner, run_lock

logger = logging.getLogger(__name__)

Watch = Callable[[GridTable], None]
# The exit code of a mistake of the user's, which another attempt would make again.
_MISTAKE = 2
_WITHIN = 0.2
# Seconds between two looks at what running cells have come to, and at folders others hold.
_LOOK = 2.0


def run_grid(
    jobs: Sequence[Job],
    job_options: JobOptions,
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
    with run_lock(table.path_of(job_options.root).with_suffix(".driver")), graceful_shutdown(handle_signals) as stop:
        grid = _Grid(job_options, engine, retries, watch, stop)
        try:
            grid.run(jobs)
            grid.run([job for job in prediction_jobs(job_options.root, jobs) if grid.complete(job)])
        except BaseException:
            grid.stop_runs()
            raise
        finally:
            engine.close()
            final = grid.close()
        return final


@dataclass
class _Running:
    handle: JobHandle
    began: float


class _Grid:
    def __init__(self, job_options: JobOptions, engine: Engine, retries: int, watch: Watch, stop: StopRequest) -> None:
        self._job_options = job_options
        self._engine = engine
        self._retries = retries
        self._watch = watch
        self._stop = stop
        self._stopped = False
        self._rows: dict[Job, JobRow] = {}
        self._handles: dict[Job, _Running] = {}
        self._plans: dict[str, Plan] = {}
        self._looked = 0.0

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            done = is_done(self._job_options.root, job)
            self._rows[job] = refreshed(self._job_options.root, JobRow(job=job, state="done" if done else "waiting"))
        self._tell()
        while any(row.state in ("waiting", "running") for row in self._rows.values()):
            changed = [self._ended(job) for job in list(self._handles)]
            changed += [self._start(job) for job in self._startable()]
            if any(changed) or time.monotonic() - self._looked > _LOOK:
                self._tell()
            if self._stop.requested:
                self._stop.obey()
            time.sleep(_WITHIN)

    def complete(self, prediction: Job) -> bool:
        """Whether all folds of the model that are in the grid are done."""
        mine = [row for job, row in self._rows.items() if (job.dataset, job.model) == (prediction.dataset, prediction.model)]
        return all(row.state == "done" for row in mine)

    def close(self) -> GridTable:
        """What was under way waits for the next grid."""
        for job in list(self._handles):
            if not self._ended(job):
                self._rows[job] = replace(self._rows[job], state="waiting", where="", message="stopped")
        return self._tell()

    def _tell(self) -> GridTable:
        self._looked = time.monotonic()
        for job, running in self._handles.items():
            row = replace(self._rows[job], where=running.handle.where)
            self._rows[job] = refreshed(self._job_options.root, row)
        told = table.write(self._job_options.root, self._engine.name, self._rows.values())
        self._watch(told)
        return told

    def _startable(self) -> list[Job]:
        """As many waiting cells as there are free slots, first come first."""
        free = self._engine.slots() - len(self._handles)
        chosen: list[Job] = []
        for job, row in self._rows.items():
            if len(chosen) >= free or self._stop.requested:
                break
            if row.state == "waiting" and not self._must_wait(job, chosen):
                chosen.append(job)
        return chosen

    def _must_wait(self, job: Job, chosen: Sequence[Job]) -> bool:
        """For the model's learning rate, which its first run searches for; or for somebody else who works on the folder."""
        if job.predicts:
            return False
        dataset = Dataset(self._job_options.root, job.dataset)
        others = [other for other in (*self._handles, *chosen) if (other.dataset, other.model) == (job.dataset, job.model)]
        if (
            others
            and lr_search.needs_search(self._plan(dataset), job.model)
            and lr_search.read_search(dataset, job.model) is None
        ):
            return True
        holder = lock_owner(folder_of(self._job_options.root, job))
        message = f"held by process {holder.pid} on {holder.host}" if holder else ""
        self._rows[job] = replace(self._rows[job], message=message)
        return holder is not None

    def _plan(self, dataset: Dataset) -> Plan:
        if dataset.name not in self._plans:
            plan = read_artefact(dataset.plan, Plan)
            self._plans[dataset.name] = apply_overrides(plan, self._job_options.settings or {})
        return self._plans[dataset.name]

    def _start(self, job: Job) -> bool:
        handle = self._engine.start(command_of(job, self._job_options), log_of(self._job_options.root, job))
        self._handles[job] = _Running(handle, time.monotonic())
        row = self._rows[job]
        self._rows[job] = replace(row, state="running", attempts=row.attempts + 1, where=handle.where, message="")
        return True

    def _ended(self, job: Job) -> bool:
        """Take note if a cell's process has ended."""
        running = self._handles[job]
        outcome = running.handle.poll()
        if outcome is None:
            return False
        del self._handles[job]
        row = refreshed(self._job_options.root, self._rows[job])
        row = replace(row, seconds=row.seconds + time.monotonic() - running.began, where=outcome.where or running.handle.where)
        self._rows[job] = self._judged(row, outcome)
        return True

    def _judged(self, row: JobRow, outcome: Outcome) -> JobRow:
        job = row.job
        if outcome.code == 0 and is_done(self._job_options.root, job):
            logger.info(f"{_title(job)}: done" + ("" if job.predicts else f", best Dice {row.best_dice:.3f}"))
            return replace(row, state="done", message="")
        words = outcome.message or last_error_line(log_of(self._job_options.root, job))
        if self._stopped:
            return replace(row, state="waiting", message="stopped")
        how = "lost with its machine" if outcome.code is None else f"ended with code {outcome.code}"
        if outcome.code != _MISTAKE and row.attempts <= self._retries:
            logger.warning(f"{_title(job)} {how}: it is started again ({words})")
            return replace(row, state="waiting", message=f"{how}; to be started again")
        logger.warning(f"{_title(job)} failed: {words}")
        return replace(row, state="failed", message=words or how)

    def stop_runs(self) -> None:
        self._stopped = True
        logger.info(f"stopping {len(self._handles)} runs, which write their checkpoints first")
        for running in self._handles.values():
            running.handle.stop()


def _title(job: Job) -> str:
    return f"{job.dataset}, {job.model}, {'test images' if job.predicts else f'fold {job.fold}'}"
