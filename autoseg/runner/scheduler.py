"""The scheduler: starts jobs, restarts crashed ones, and updates the table."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoseg.planning.overrides import apply_overrides
from autoseg.runner import table
from autoseg.runner.engine import Engine, JobHandle, Outcome
from autoseg.runner.jobs import JobOptions, command_of, folder_of, is_done, log_of, prediction_jobs, with_progress
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
# Exit code of a user error, which a restart would repeat.
_USER_ERROR = 2
# A shell's exit code of a process killed by signal n is this and n.
_SIGNALLED = 128
# Seconds between two polls of the processes.
_POLL_SECONDS = 0.2
# Seconds between two updates of the table, and checks of folders that are locked by other processes.
_UPDATE_SECONDS = 2.0


def run_jobs(
    jobs: Sequence[Job],
    job_options: JobOptions,
    engine: Engine,
    *,
    retries: int = 2,
    watch: Watch = lambda table: None,
    handle_signals: bool = False,
) -> GridTable:
    """Run the jobs that are not done, then predict test images with each model whose folds are all done.

    retries: how often a crashed job is restarted from its checkpoint; a user error is not retried. watch: called with each
    update of the table. On interruption the jobs write checkpoints and stop. handle_signals: for commands: SIGTERM interrupts
    too (SystemExit), and Ctrl-C waits for the end of a poll. Returns the final table. Raises AutosegError if another runner
    uses this root.
    """
    driver = table.path_of(job_options.root).with_suffix(".driver")
    with run_lock(driver, job_options.break_lock), graceful_shutdown(handle_signals) as stop:
        scheduler = _Scheduler(job_options, engine, retries, watch, stop)
        try:
            scheduler.run(jobs)
            scheduler.run([job for job in prediction_jobs(job_options.root, jobs) if scheduler.all_folds_done(job)])
        except BaseException:
            scheduler.stop_jobs()
            raise
        finally:
            engine.close()
            final = scheduler.close()
        return final


@dataclass
class _RunningJob:
    """log_start: size of the log when it started; before it are the lines of earlier attempts."""

    handle: JobHandle
    started: float
    log_start: int


class _Scheduler:
    def __init__(self, job_options: JobOptions, engine: Engine, retries: int, watch: Watch, stop: StopRequest) -> None:
        self._job_options = job_options
        self._engine = engine
        self._retries = retries
        self._watch = watch
        self._stop = stop
        self._interrupted = False
        self._rows: dict[Job, JobRow] = {}
        self._handles: dict[Job, _RunningJob] = {}
        self._plans: dict[str, Plan] = {}
        self._last_update = 0.0

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            done = is_done(self._job_options.root, job, self._job_options.deterministic)
            self._rows[job] = with_progress(self._job_options.root, JobRow(job=job, state="done" if done else "waiting"))
        self._update_table()
        while any(row.state in ("waiting", "running") for row in self._rows.values()):
            changed = [self._check_ended(job) for job in list(self._handles)]
            changed += [self._start(job) for job in self._startable()]
            if any(changed) or time.monotonic() - self._last_update > _UPDATE_SECONDS:
                self._update_table()
            if self._stop.requested:
                self._stop.exit()
            time.sleep(_POLL_SECONDS)

    def all_folds_done(self, prediction: Job) -> bool:
        """Whether all selected folds of the model are done."""
        same = (prediction.dataset, prediction.model, "")
        rows = [row for job, row in self._rows.items() if (job.dataset, job.model, job.trial) == same]
        return all(row.state == "done" for row in rows)

    def close(self) -> GridTable:
        """Mark running jobs as waiting, and write the final table."""
        for job in list(self._handles):
            if not self._check_ended(job):
                self._rows[job] = replace(self._rows[job], state="waiting", where="", message="stopped")
        return self._update_table()

    def _update_table(self) -> GridTable:
        self._last_update = time.monotonic()
        for job, running in self._handles.items():
            row = replace(self._rows[job], where=running.handle.where)
            self._rows[job] = with_progress(self._job_options.root, row)
        updated = table.write(self._job_options.root, self._engine.name, self._rows.values())
        self._watch(updated)
        return updated

    def _startable(self) -> list[Job]:
        """The next waiting jobs, at most one for each free slot."""
        free = self._engine.slots() - len(self._handles)
        startable: list[Job] = []
        for job, row in self._rows.items():
            if len(startable) >= free or self._stop.requested:
                break
            if row.state == "waiting" and not self._must_wait(job, startable):
                startable.append(job)
        return startable

    def _must_wait(self, job: Job, starting: Sequence[Job]) -> bool:
        """Whether the model's learning rate is still searched by its first job, or another process has locked the folder."""
        if job.predicts:
            return False
        dataset = Dataset(self._job_options.root, job.dataset)
        others = [other for other in (*self._handles, *starting) if (other.dataset, other.model) == (job.dataset, job.model)]
        if (
            others
            and not job.trial
            and lr_search.needs_search(self._plan(dataset), job.model)
            and lr_search.read_search(dataset, job.model) is None
        ):
            return True
        owner = lock_owner(folder_of(self._job_options.root, job))
        if owner is not None and self._job_options.break_lock and not owner.is_running:
            owner = None
        message = f"locked by process {owner.pid} on {owner.host}" if owner else ""
        self._rows[job] = replace(self._rows[job], message=message)
        return owner is not None

    def _plan(self, dataset: Dataset) -> Plan:
        if dataset.name not in self._plans:
            plan = read_artefact(dataset.plan, Plan)
            self._plans[dataset.name] = apply_overrides(plan, self._job_options.settings or {})
        return self._plans[dataset.name]

    def _start(self, job: Job) -> bool:
        log = log_of(self._job_options.root, job)
        log_start = log.stat().st_size if log.exists() else 0
        handle = self._engine.start(command_of(job, self._job_options), log)
        self._handles[job] = _RunningJob(handle, time.monotonic(), log_start)
        row = self._rows[job]
        self._rows[job] = replace(row, state="running", attempts=row.attempts + 1, where=handle.where, message="")
        return True

    def _check_ended(self, job: Job) -> bool:
        """Update the row of a job if its process has ended. Returns whether it has."""
        running = self._handles[job]
        outcome = running.handle.poll()
        if outcome is None:
            return False
        del self._handles[job]
        row = with_progress(self._job_options.root, self._rows[job])
        row = replace(
            row, seconds=row.seconds + time.monotonic() - running.started, where=outcome.where or running.handle.where
        )
        last_line = last_error_line(log_of(self._job_options.root, job), running.log_start)
        self._rows[job] = self._row_after(row, outcome, "; ".join(filter(None, [outcome.message, last_line])))
        return True

    def _row_after(self, row: JobRow, outcome: Outcome, message: str) -> JobRow:
        """message: what the job or its engine said last."""
        job = row.job
        if outcome.code == 0 and is_done(self._job_options.root, job, self._job_options.deterministic):
            logger.info(f"{_title(job)}: done" + ("" if job.predicts else f", mDSC {row.micro_dice:.3f}"))
            return replace(row, state="done", message="")
        if self._interrupted:
            return replace(row, state="waiting", message="stopped")
        where = f" ({row.where})" if row.where else ""
        if outcome.code != _USER_ERROR:
            message = f"{_ending(outcome.code)}; {message or 'it wrote nothing'}"
            if row.attempts <= self._retries:
                logger.warning(f"{_title(job)}{where} {message}: restarting it")
                return replace(row, state="waiting", message=f"{message}; will be restarted")
        logger.warning(f"{_title(job)}{where} failed: {message}; all of it: {log_of(self._job_options.root, job)}")
        return replace(row, state="failed", message=message)

    def stop_jobs(self) -> None:
        self._interrupted = True
        logger.info(f"stopping {len(self._handles)} jobs; they write their checkpoints first")
        for running in self._handles.values():
            running.handle.stop()


def _ending(code: int | None) -> str:
    """How a process ended, in words. code: None if its machine was lost; -n or 128 + n after signal n."""
    if code is None:
        return "was lost with its machine"
    number = -code if code < 0 else code - _SIGNALLED
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with code {code}"
    return f"was killed by {name}" + (", most often because memory has run out" if number == signal.SIGKILL else "")


def _title(job: Job) -> str:
    return f"{job.dataset}, {job.trial or job.model}, {'test images' if job.predicts else f'fold {job.fold}'}"
