"""autoseg_study: repeats a published study, or one of your own, with one command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry
from autoseg.cli._readers import confirm
from autoseg.cli.run import live_table
from autoseg.schema.study import SCALES

if TYPE_CHECKING:
    from autoseg.schema.study import StudyCheck, StudyRecord

_INCOMPLETE = 1


@entry.resumable("the same command resumes the study")
def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    from autoseg import api

    if options.list or not options.study:
        _show_studies()
        return 0
    entry.configure_glibc_malloc(arguments, limit=None)
    choices = {
        "scale": options.scale, "data": options.data, "use": entry.settings(options.use, "--use", "CAMUS=MyHearts"),
        "datasets": None if options.datasets is None else entry.names(options.datasets),
        "models": None if options.models is None else entry.names(options.models),
        "missing_weights": options.missing_weights, "mock_service": options.mock_service,
        "send_images_to": options.send_images_to, "heat_maps": not options.no_heat_maps, "hours": options.hours,
        "memory": options.memory, "device": options.device, "root": options.root,
    }  # fmt: skip
    if options.check:
        check = api.check_study(options.study, **choices)
        _show_check(check)
        return entry.USER_ERROR if check.problems else 0
    with live_table() as watch:
        record = api.run_study(
            options.study, **choices, confirm=confirm(options), engine=options.engine, workers=options.workers,
            gpus_per_run=options.gpus_per_run, address=options.address, slurm=entry.settings(options.slurm, "--slurm"),
            retries=options.retries, watch=watch, handle_signals=True,
        )  # fmt: skip
    _show(record)
    return _INCOMPLETE if record.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = entry.parser(
        "autoseg_study",
        "Convert, train, score and compare everything a study has, and put its published numbers next to ours. What is missing "
        "is listed before it starts.",
        "exit code 1: some trainings or comparisons failed, the others are done\n"
        "example: autoseg_study borst_kounev_2026 --scale small --missing-weights random --use CAMUS=ACDC",
    )
    parser.add_argument("study", nargs="?", default="", metavar="NAME|FILE", help="a study of --list, or a YAML file")
    parser.add_argument("--list", action="store_true", help="print the studies that come with autoseg, and exit")
    parser.add_argument("--check", action="store_true", help="print hours, memory and all that is missing; train nothing")
    parser.add_argument("--scale", choices=SCALES, default="full", help="small: few small images and steps (default: full)")
    parser.add_argument("--data", metavar="DIR", help="folder of the published archives (default: ROOT/downloads)")
    parser.add_argument(
        "--use", action="append", default=[], metavar="NAME=DATASET", help="take this dataset of yours for one of the study"
    )
    parser.add_argument("--datasets", metavar="A,B", help="only these datasets of the study")
    parser.add_argument("-m", "--models", metavar="A,B", help="only these models")
    parser.add_argument(
        "--missing-weights", choices=("refuse", "random"), default="refuse",
        help="random: models whose published weights are missing start from random ones (default: refuse to start)",
    )  # fmt: skip
    parser.add_argument("--send-images-to", metavar="NAME", help="allow sending images to this service only")
    parser.add_argument("--mock-service", action="store_true", help="a stand-in for the service; its masks are no model's")
    parser.add_argument("--yes", action="store_true", help="send without a question")
    parser.add_argument("--no-heat-maps", action="store_true", help="draw no heat maps of the worst cases")
    parser.add_argument("--hours", type=float, metavar="H", help="refuse to start if the trainings would take longer")
    parser.add_argument("--memory", metavar="SIZE", help="memory of a training, e.g. 8G (default: by the device)")
    entry.add_engine(parser)
    entry.add_device(parser)
    return parser


def _show_studies() -> None:
    from autoseg.study.definition import published_studies, read_study

    rows = []
    for name in published_studies():
        study, _ = read_study(name)
        datasets, models = ", ".join(one.name for one in study.datasets), str(len(study.models))
        rows.append((name, study.title, study.source, datasets, models))
    _tables.show_table("Studies", ("name", "title", "source", "datasets", "models"), rows)


def _show_check(check: StudyCheck) -> None:
    from autoseg.planning.time_budget import show_time

    rows = [
        (
            one.dataset, one.model, one.variant, str(one.seed), str(one.folds),
            "?" if one.hours != one.hours else show_time(one.hours), f"{one.memory / 2**30:.1f} GiB",
        )
        for one in check.trainings
    ]  # fmt: skip
    if rows:
        headings = ("dataset", "model", "variant", "seed", "folds left", "time", "memory")
        _tables.show_table("Trainings", headings, rows, keys=2)
    _tables.show_text(check.summary())
    for problem in check.problems:
        _tables.show_text(f"- {problem}", "  ")


def _show(record: StudyRecord) -> None:
    from autoseg.study.tables import study_tables

    for table in study_tables(record):
        _tables.show_table(table.title, table.headings, table.rows)
        _tables.show_text(table.note)
    _tables.show_text(f"{len(record.deviations)} deviations from the protocol:")
    for line in record.deviations:
        _tables.show_text(f"- {line}", "  ")
