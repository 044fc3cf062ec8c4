"""results/grid.json, the table of jobs: for `autoseg_run --status` and for a resumed runner."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from autoseg.runner.jobs import is_done, with_progress
from autoseg.schema.runner import GridTable, JobRow
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact

HEADINGS = ("dataset", "model", "fold", "state", "epoch", "mDSC", "minutes", "started", "where", "message")
_SECONDS = 60


def path_of(root: Path) -> Path:
    return root / "results" / "grid.json"


def write(root: Path, engine: str, rows: Iterable[JobRow]) -> GridTable:
    """Write the current table."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    table = GridTable(engine=engine, host=socket.gethostname(), pid=os.getpid(), updated=now, rows=tuple(rows))
    write_artefact(path_of(root), table)
    return table


def read(root: Path) -> GridTable | None:
    """The table of the last `autoseg_run`, None if there is none."""
    path = path_of(root)
    return read_artefact(path, GridTable, f"delete {path}; it contains no results") if path.exists() else None


def status(root: Path) -> GridTable:
    """The table with the current progress of the jobs. Raises AutosegError if there is no table."""
    table = read(root)
    if table is None:
        raise AutosegError(f"no jobs were run under {root}", "start them: autoseg_run --datasets 501 --models all --folds all")
    rows = []
    for row in table.rows:
        row = with_progress(root, row)
        if row.state != "done" and is_done(root, row.job):
            row = JobRow(**{**vars(row), "state": "done", "message": ""})
        rows.append(row)
    return GridTable(engine=table.engine, host=table.host, pid=table.pid, updated=table.updated, rows=tuple(rows))


def lines(rows: Iterable[JobRow]) -> list[tuple[str, ...]]:
    """The rows as text cells, in the order of HEADINGS."""
    return [
        (
            row.job.dataset, row.job.trial or row.job.model, "test images" if row.job.predicts else str(row.job.fold),
            row.state,
            f"{row.epochs_done}/{row.epochs_planned}" if row.epochs_planned else "",
            f"{row.micro_dice:.3f}" if row.epochs_done and row.micro_dice == row.micro_dice else "",
            f"{row.seconds / _SECONDS:.1f}" if row.attempts else "",
            f"{row.attempts} x" if row.attempts else "", row.where, row.message,
        )
        for row in rows
    ]  # fmt: skip
