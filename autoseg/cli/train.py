"""autoseg_train: one model, one fold or all."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry
from autoseg.schema.plan import PROTOCOLS
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.api.training import TrainedFold
    from autoseg.schema.frame import Results
    from autoseg.schema.scores import Scores

# Which weights were scored, by `Training.selection`.
_WEIGHTS = {
    "held_out": "best of {} epochs",
    "inner": "best of {} epochs on inner cases",
    "next_fold": "best of {} epochs on the next fold's cases",
    "last": "after {} epochs",
    "average": "averaged weights after {} epochs",
}


@entry.resumable("the same command resumes the run from its last checkpoint")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_train",
        "Train a model on a fold, then score it on the fold's held-out cases. Interrupted runs resume.",
        "example: autoseg_train 501 segformer 0",
    )
    entry.add_dataset(parser)
    parser.add_argument("model", metavar="MODEL", help="a name from autoseg_models")
    parser.add_argument("fold", metavar="FOLD", help="0, 1, ... or all")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="plan again if the plan is for another protocol")
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the plan's")
    parser.add_argument("--pretrained", metavar="auto|study|none|PATH", help="weights to start from (default: the plan's)")
    parser.add_argument("--replan", action="store_true", help="plan again if images or masks have changed")
    parser.add_argument("--restart", action="store_true", help="start again and discard the earlier run")
    parser.add_argument("--trial", metavar="DIR", help="by DIR/plan.json and splits.json, a folder below the dataset's results")
    parser.add_argument("--extend", type=int, metavar="N", help="train a finished run on, to N epochs in all")
    entry.add_break_lock(parser)
    entry.add_deterministic(parser)
    entry.add_log_to(parser)
    entry.add_settings(parser)
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    settings = entry.settings(options.set)
    if options.epochs is not None:
        settings["training.epochs"] = str(options.epochs)
    from autoseg import api
    from autoseg.training.device import resolve

    if resolve(options.device).type == "cpu":
        entry.configure_glibc_malloc(arguments, limit=None)
    trained = _trial(options, settings) if options.trial is not None else api.train(
        options.dataset,
        options.model,
        entry.folds([options.fold]),
        protocol=options.protocol,
        settings=settings,
        device=options.device,
        pretrained=options.pretrained,
        restart=options.restart,
        replan=options.replan,
        extend=options.extend,
        deterministic=options.deterministic,
        log_to=entry.names(options.log_to),
        break_lock=options.break_lock,
        handle_signals=True,
        root=options.root,
    )  # fmt: skip
    from autoseg.schema.run import choices_text

    for fold in trained:
        record = fold.record
        _tables.show_table(
            f"fold {record.fold}: held-out cases at original size ({_WEIGHTS[record.selection].format(record.epochs_done)})",
            ("class", "pooled Dice", "Dice per image"),
            _dice(fold.scores),
        )
        print(f"{choices_text(record.saw_scored_cases)}\nin {fold.folder}")
    if trained and options.trial is None:
        dataset = trained[0].record.dataset.partition("_")[2]
        entry.show_next(f"autoseg_predict -i IMAGES -o MASKS -d {dataset} -m {options.model} --overlays", options.root)
    return 0


def _trial(options: argparse.Namespace, settings: dict[str, str]) -> Results[TrainedFold]:
    """Train by the plan of a folder, which says everything that other options would."""
    given = (options.protocol, options.pretrained, options.replan, options.restart, options.extend, settings)
    if any(given) or not options.fold.isdigit():
        raise AutosegError(
            "--trial trains one fold by the plan in its folder",
            "give a fold's number, and leave out --protocol, --set, --epochs, --pretrained, --replan, --restart and --extend",
        )
    from autoseg.api.training import train_trial

    return train_trial(
        options.dataset, options.model, int(options.fold), options.trial, device=options.device,
        deterministic=options.deterministic, log_to=entry.names(options.log_to), break_lock=options.break_lock,
        handle_signals=True, root=options.root,
    )  # fmt: skip


def _dice(scores: Scores) -> Iterator[tuple[str, str, str]]:
    for name, summary in scores.classes.items():
        yield name, f"{summary.pooled['dice']:.3f}", f"{summary.per_image['dice'].mean:.3f}"
    if len(scores.classes) > 1:
        yield "all classes (mDSC)", f"{scores.overall['micro.dice']:.3f}", ""
        yield "class mean", f"{scores.overall['class_mean.dice']:.3f}", f"{scores.overall['per_image.dice']:.3f}"
