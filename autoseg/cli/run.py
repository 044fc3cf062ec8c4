"""autoseg_run: every model, fold and dataset, on one machine or a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autoseg.cli import _tables, entry
from autoseg.schema.plan import PROTOCOLS
from autoseg.support.errors import AutosegError
from autoseg.support.log import configure_logging

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from autoseg.schema.runner import GridTable

_SOME_FAILED = 1


@entry.resumable("the same command resumes the jobs from their last checkpoints")
def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    from autoseg import api
    from autoseg.runner.table import HEADINGS, lines

    if options.status:
        table = api.grid_status(options.root)
        title = f"runner on {table.host}, process {table.pid}, engine {table.engine}, updated {table.updated}"
        _tables.show_table(title, HEADINGS, lines(table.rows), keys=3)
        return 0
    if not options.datasets:
        raise AutosegError("no datasets given", "--datasets 501,502, or --status for the jobs of the last run")
    with live_table() as watch:
        table = api.run(
            entry.names(options.datasets),
            None if options.models == "all" else entry.names(options.models),
            entry.folds(entry.names(options.folds)),
            seeds=_seeds(options.seeds),
            engine=options.engine,
            workers=options.workers,
            gpus_per_run=options.gpus_per_run,
            address=options.address,
            slurm=entry.settings(options.slurm, "--slurm"),
            retries=options.retries,
            break_lock=options.break_lock,
            protocol=options.protocol,
            replan=options.replan,
            settings=entry.settings(options.set),
            pretrained=options.pretrained,
            deterministic=options.deterministic,
            log_to=entry.names(options.log_to),
            device=options.device,
            watch=watch,
            handle_signals=True,
            root=options.root,
        )
    _tables.show_table("", HEADINGS, lines(table.rows), keys=3)
    return _SOME_FAILED if any(row.state != "done" for row in table.rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = entry.parser(
        "autoseg_run",
        "Train, score and compare every (dataset, model, fold) that is not done yet. Crashed jobs restart.",
        "exit code 1: some jobs failed, the others are done\n"
        "example: autoseg_run --datasets 501,502 --models all --folds all --workers 2",
    )
    parser.add_argument("--datasets", metavar="A,B", help="ids or names")
    parser.add_argument("-m", "--models", default="all", metavar="A,B", help="model names, or all of the plan (default)")
    parser.add_argument("-f", "--folds", default="all", metavar="0,1", help="fold numbers, or all (default)")
    parser.add_argument("--seeds", metavar="0,1,2", help="train with each of these seeds (default: the plan's)")
    parser.add_argument("--status", action="store_true", help="print the table of jobs and exit")
    entry.add_engine(parser)
    entry.add_break_lock(parser)
    parser.add_argument("--protocol", choices=PROTOCOLS, help="plan again if the plan is for another protocol")
    parser.add_argument("--replan", action="store_true", help="plan again if images or masks have changed")
    parser.add_argument("--pretrained", metavar="auto|study|none|PATH", help="weights to start from (default: the plan's)")
    entry.add_deterministic(parser)
    entry.add_log_to(parser)
    entry.add_settings(parser)
    entry.add_device(parser)
    return parser


def _seeds(text: str | None) -> list[int]:
    names = entry.names(text) if text else []
    if not all(name.isdigit() for name in names):
        raise AutosegError(f"--seeds cannot be {text!r}", "give numbers, such as --seeds 0,1,2")
    return [int(name) for name in names]


@contextmanager
def live_table() -> Iterator[Callable[[GridTable], None]]:
    """A live table on a terminal; without a terminal the log messages are enough."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda table: None
        return
    from rich.live import Live

    from autoseg.runner.table import HEADINGS, lines

    with Live(console=console, refresh_per_second=2, redirect_stderr=True) as live:
        # As many rows as fit on the screen, running and failed jobs first.
        def watch(table: GridTable) -> None:
            live.update(_visible_rows(table, console, HEADINGS, lines))

        # The log handler must use the redirected stream, so that messages appear above the table.
        configure_logging()
        yield watch
    configure_logging()


def _visible_rows(table: GridTable, console: Console, headings: Sequence[str], lines: Callable[..., Any]) -> Table:
    order = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
    rows = sorted(table.rows, key=lambda row: order[row.state])
    counted = ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in order)
    visible = lines(rows[: max(1, console.height - 4)])
    return _tables.fitting_columns(headings, visible, console.width, counted)
