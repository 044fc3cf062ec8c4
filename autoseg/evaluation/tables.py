"""Scores as files: scores.json holds everything, scores.csv one row per case and class, scores_summary.csv those of the set."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from autoseg.evaluation.summary import added_metrics
from autoseg.metrics.rules import is_defined
from autoseg.schema.scores import BUILT_IN_METRICS, Scores
from autoseg.support.files import atomic_write, write_artefact

JSON, CSV, SUMMARY = "scores.json", "scores.csv", "scores_summary.csv"
ALL = "all classes"
_PIXELS, _OBJECTS = ("tp", "fp", "fn"), ("object_tp", "object_fp", "object_fn")


def write_scores(scores: Scores, folder: Path) -> None:
    """scores.json, scores.csv and scores_summary.csv in `folder`. Line ends are "\\n", as pandas writes them."""
    write_artefact(folder / JSON, scores)
    _write(folder / CSV, lambda stream: _write_cases(scores, stream))
    _write(folder / SUMMARY, lambda stream: _write_summary(scores, stream))


def _write(path: Path, write_rows: Callable[[TextIO], None]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        write_rows(stream)


def _write_cases(scores: Scores, stream: TextIO) -> None:
    """One row per case and class; an undefined metric is an empty cell."""
    writer = csv.writer(stream, lineterminator="\n")
    added = added_metrics(scores.cases)
    writer.writerow(["case", "class", *_PIXELS, *BUILT_IN_METRICS, *_OBJECTS, *added, "unit"])
    for case in scores.cases:
        for name, score in case.classes.items():
            pixels, objects = ([getattr(score, name) for name in names] for names in (_PIXELS, _OBJECTS))
            own, others = ([_cell(score.value(metric)) for metric in metrics] for metrics in (BUILT_IN_METRICS, added))
            writer.writerow([case.case, name, *pixels, *own, *objects, *others, scores.unit])


def _write_summary(scores: Scores, stream: TextIO) -> None:
    """One row per class, averaging and metric; deviation, median and number of undefined cases of means over images only."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["class", "averaging", "metric", "value", "std", "median", "undefined"])
    writer.writerows(_summary_rows(scores))


def _summary_rows(scores: Scores) -> Iterator[tuple[str, ...]]:
    for key, value in scores.overall.items():
        averaging, _, metric = key.partition(".")
        yield ALL, averaging, metric, _cell(value), "", "", ""
    for name, summary in scores.classes.items():
        for metric, value in summary.pooled.items():
            yield name, "pooled", metric, _cell(value), "", "", ""
        for metric, one in summary.per_image.items():
            numbers = (one.mean, one.std, one.median)
            yield name, "per_image", metric, *map(_cell, numbers), str(one.undefined)


def _cell(value: float) -> str:
    return f"{value:.6f}" if is_defined(value) else ""
