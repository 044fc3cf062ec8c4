"""results/grid.json: where each cell stands, for whoever looks while the grid runs, and for the grid that goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from autoseg.runner.jobs import is_done, refreshed
from autoseg.schema.runner import GridTable, JobRow
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact

HEADINGS = ("dataset", "model", "fold", "state", "epoch", "Dice", "minutes", "started", "where", "message")
_SECONDS = 60


def path_of(root: Path) -> Path:
    return root / "results" / "grid.json"


def write(root: Path, engine: str, rows: Iterable[JobRow]) -> GridTable:
    """The table as of now."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    table = GridTable(engine=engine, host=socket.gethostname(), pid=os.getpid(), updated=now, rows=tuple(rows))
    write_artefact(path_of(root), table)
    return table


def read(root: Path) -> GridTable | None:
    """The table of the grid that ran last, None before there was one."""
    path = path_of(root)
    return read_artefact(path, GridTable, f"delete {path}; the runs themselves are not in it") if path.exists() else None


def status(root: Path) -> GridTable:
    """The table, with what the runs have come to since. Raises AutosegError where there is none."""
    table = read(root)
    if table is None:
        raise AutosegError(f"no grid was run under {root}", "start one: autoseg_run --datasets 501 --models all --folds all")
    rows = []
    for row in table.rows:
        row = refreshed(root, row)
        if row.state != "done" and is_done(root, row.job):
            row = JobRow(**{**vars(row), "state": "done", "message": ""})
        rows.append(row)
    return GridTable(engine=table.engine, host=table.host, pid=table.pid, updated=table.updated, rows=tuple(rows))


def lines(rows: Iterable[JobRow]) -> list[tuple[str, ...]]:
    """The rows as texts, under HEADINGS."""
    return [
        (
            row.job.dataset, row.job.model, "test images" if row.job.predicts else str(row.job.fold), row.state,
            f"{row.epochs_done}/{row.epochs_planned}" if row.epochs_planned else "",
            f"{row.best_dice:.3f}" if row.epochs_done else "",
            f"{row.seconds / _SECONDS:.1f}" if row.attempts else "",
            f"{row.attempts} x" if row.attempts else "", row.where, row.message,
        )
        for row in rows
    ]  # fmt: skip
