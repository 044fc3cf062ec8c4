"""autoseg_compare: all finished models of one or several datasets."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry
from autoseg.support.extensions import METRICS

if TYPE_CHECKING:
    from autoseg.schema.comparison import Comparison


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    folds, also = entry.folds(options.folds), entry.settings(options.also, "--also", "other_program=masks")
    from autoseg import api

    if options.risk_coverage:
        return _risk_coverage(options, folds, also)
    with entry.unsaved(
        api.compare,
        options.datasets,
        models=options.models,
        folds=folds,
        metric=options.metric,
        stratify_by=options.stratify_by,
        share=options.share,
        metadata=options.metadata,
        also=also,
        family=options.family,
        second_annotator=options.second_annotator,
        allow_unequal=options.allow_unequal,
        output=options.output,
        report=not options.no_report,
        root=options.root,
    ) as comparison:
        _show(comparison)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = entry.parser(
        "autoseg_compare",
        "Compare finished trainings: tables, paired tests, ranking, cost, easy and hard cases; writes comparison.json,\n"
        "comparison.csv, report.html, and for papers comparison.md, comparison.tex and comparison_<table>.csv.",
        "example: autoseg_compare Polyp --stratify-by segformer --share 0.05",
    )
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="ids or names")
    parser.add_argument("-m", "--models", type=entry.names, metavar="A,B", help="only these (default: all that are trained)")
    parser.add_argument("-f", "--folds", nargs="+", default=["all"], metavar="N", help="only these folds")
    parser.add_argument(
        "--metric", default="dice", metavar="NAME",
        help=f"metric per case for tests and ranking: {entry.one_of(METRICS)} (default: dice)",
    )  # fmt: skip
    parser.add_argument(
        "--stratify-by", action="append", default=[], metavar="BY",
        help="a model (easy and hard cases by its Dice), or object_size, objects, thickness, image_size, classes, brightness, "
        "group, case=PATTERN, group=PATTERN, or a column of --metadata; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", type=Path, metavar="FILE",
        help="CSV with a column 'case' and others for --stratify-by: site, scanner, sex, age; the worst group next to the mean",
    )  # fmt: skip
    parser.add_argument(
        "--share",
        type=float,
        default=0.05,
        metavar="S",
        help="fraction of cases that count as easy, and as hard (default: 0.05)",
    )
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=DIR",
        help="masks of another program, scored by autoseg_evaluate, or the results folder of a model (fold_0, ...) of nnU-Net "
        "v2, or of autoseg with another setting",
    )  # fmt: skip
    parser.add_argument(
        "--family", default="external", metavar="NAME", help="family of the masks of --also in tables (default: external)"
    )
    parser.add_argument(
        "--second-annotator", type=Path, metavar="DIR",
        help="masks that another person drew of (some of) the cases: people's agreement as the ceiling, models with either",
    )  # fmt: skip
    parser.add_argument(
        "--risk-coverage", action="store_true",
        help="instead: how well confidence ranks cases (AURC), and the effect of a second reader on hard and easy ones",
    )  # fmt: skip
    parser.add_argument("--first", metavar="MODEL", help="for --risk-coverage: the first reader (default: the best)")
    parser.add_argument("--second", metavar="MODEL", help="the second reader (default: the next best)")
    parser.add_argument(
        "--min-expected-dice", type=float, default=0.8, metavar="DICE", help="below this expected Dice: second reader (0.8)"
    )
    parser.add_argument("--allow-unequal", action="store_true", help="compare runs with different splits or budgets too")
    parser.add_argument("--no-report", action="store_true", help="tables only, no HTML report")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: results/DATASET/comparison)")
    return parser


def _show(comparison: Comparison) -> None:
    from autoseg.comparison.conditions import TITLE
    from autoseg.comparison.headline import summary
    from autoseg.comparison.paper_files import other_notes
    from autoseg.comparison.tables import tables

    for table in tables(comparison):
        _tables.show_table(table.title, table.headings, table.rows, table.keys)
        _tables.show_text(table.note, "  ")
        print()
    for dataset in comparison.datasets:
        _tables.show_text(summary(dataset))
        print()
        lines = [*dataset.conditions.lines.items(), *(("note", note) for note in other_notes(dataset))]
        _tables.show_text(f"{TITLE} of {dataset.dataset}:")
        for topic, text in lines:
            _tables.show_text(f"{topic}: {text}", "  ")


def _risk_coverage(options: argparse.Namespace, folds: list[int] | None, also: dict[str, str]) -> int:
    from autoseg import api

    for dataset in options.datasets:
        study = api.study_readers(
            dataset, models=options.models, folds=folds, first=options.first, second=options.second,
            min_expected_dice=options.min_expected_dice,
            share=options.share, also=also, output=options.output, root=options.root,
        )  # fmt: skip
        areas = [(one.model, one.score, *(f"{n:.4f}" for n in (one.aurc, one.best, one.random))) for one in study.areas]
        _tables.show_table(f"{study.dataset}: risk-coverage", ("model", "score", "AURC", "optimal", "random"), areas)
        title = f"{study.first}; cases below {study.threshold:g} read again by {study.second}: {len(study.asked)}"
        rows = [
            (one.stratum, one.reader, str(one.cases), f"{one.dice:.3f}", _distance(one.hd95), _distance(one.hd95_diagonal))
            for one in study.scores
        ]
        _tables.show_table(title, ("cases", "reader", "number", "Dice", "HD95, left out", "HD95, diagonal"), rows)
    return 0


def _distance(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
