"""autoseg_evaluate: masks against references."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.evaluation.external import ExternalResult
    from autoseg.schema.scores import Scores

_DICE = ("micro.dice", "class_mean.dice", "per_image.dice")
# Averages over all classes: their rows and the column of each.
_AVERAGES = {"micro": ("all classes (micro)", 0), "class_mean": ("class mean", 0), "per_image": ("class mean", 1)}


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_evaluate",
        "Score masks against references: per case, per class and overall; writes scores.json and tables.",
        "examples: autoseg_evaluate masks autoseg_data/raw/Dataset501_Polyp/labelsTs\n"
        "          autoseg_evaluate Polyp --external OtherPolyps --map neoplastic=polyp --map non_neoplastic=polyp",
    )
    parser.add_argument("predictions", metavar="PRED", help="folder of predicted masks; with --external: a dataset")
    parser.add_argument("references", nargs="?", metavar="REF", help="folder of reference masks")
    parser.add_argument("--external", metavar="DATASET", help="test the models trained on PRED on this other dataset")
    parser.add_argument("--map", action="append", default=[], metavar="OURS=THEIRS", help="if label names differ")
    parser.add_argument("-m", "--models", type=entry.names, metavar="A,B", help="with --external: only these")
    entry.add_device(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="for the scores (default: a predicted PRED)")
    parser.add_argument(
        "--tolerance", type=float, default=2.0, metavar="T", help="of the surface Dice, in mm or pixels (default: 2)"
    )
    options = parser.parse_args(arguments)
    if options.external is not None:
        return _external(options)
    if options.references is None:
        raise AutosegError("no reference masks given", "autoseg_evaluate PRED REF")
    from autoseg import api

    entry.configure_glibc_malloc(arguments)
    with entry.unsaved(
        api.evaluate, options.predictions, options.references, options.output, options.tolerance,
        processes=entry.is_own_process(arguments),
    ) as scores:  # fmt: skip
        _show_scores(scores)
    _show_next(Path(options.predictions), options.root)
    return 0


def _show_scores(scores: Scores) -> None:
    _tables.show_table(
        f"{len(scores.cases)} cases; distances in {scores.unit}",
        ("class", "metric", "pooled", "per image", "deviation", "undefined"),
        _rows(scores),
    )
    print(scores.rule)


def _show_next(predictions: Path, root: str | None) -> None:
    """Where the pictures of these masks are, and how to get better ones."""
    from autoseg.schema.prediction import PredictionRecord
    from autoseg.support.files import read_artefact

    if (predictions / "overlays").is_dir():
        print(f"pictures with the contours: {predictions / 'overlays'}")
    if (predictions / "prediction.json").is_file():
        record = read_artefact(predictions / "prediction.json", PredictionRecord)
        dataset = record.dataset.partition("_")[2]
        print("more time for each training gives better masks, more models show which fits these images best")
        entry.show_next(f"autoseg_plan_and_preprocess {dataset} --hours 4", root)
        entry.show_next(f"autoseg_run --datasets {dataset}; autoseg_compare {dataset}", root)


def _external(options: argparse.Namespace) -> int:
    labels = entry.settings(options.map, "--map", "neoplastic=polyp")
    if options.references is not None:
        raise AutosegError(
            f"--external takes one dataset, and {options.references} was given too", "autoseg_evaluate DATASET --external OTHER"
        )
    from autoseg import api

    tested = api.evaluate_external(
        options.predictions,
        options.external,
        models=options.models,
        labels=labels,
        tolerance=options.tolerance,
        device=options.device,
        root=options.root,
    )
    first = tested[0]
    _tables.show_table(
        f"trained on {first.record.dataset}, tested on {len(first.external.cases)} cases of {first.record.external}",
        ("model", "fold", "mDSC: own", "external", "class mean: own", "external", "per image: own", "external"),
        [
            (
                one.record.model,
                str(one.record.fold),
                *(_number(scores.overall[key]) for key in _DICE for scores in _both_scores(one)),
            )
            for one in tested
        ],
    )
    print(f"labels: {', '.join(f'{ours} as {theirs}' for ours, theirs in first.record.labels.items())}")
    print("autoseg_compare shows the drop for all models")
    return 0


def _both_scores(tested: ExternalResult) -> tuple[Scores, Scores]:
    return tested.internal, tested.external


def _rows(scores: Scores) -> Iterator[tuple[str, ...]]:
    for name, summary in scores.classes.items():
        for metric, spread in summary.per_image.items():
            pooled = _number(summary.pooled[metric]) if metric in summary.pooled else ""
            yield name, metric, pooled, _number(spread.mean), _number(spread.std), str(spread.undefined)
    if len(scores.classes) < 2:
        return
    rows: dict[tuple[str, str], list[str]] = {}
    for key, value in scores.overall.items():
        averaging, _, metric = key.partition(".")
        title, column = _AVERAGES[averaging]
        rows.setdefault((title, metric), ["", ""])[column] = _number(value)
    for (title, metric), cells in rows.items():
        yield title, metric, *cells, "", ""


def _number(value: float) -> str:
    return "undefined" if value != value else f"{value:.4f}"
