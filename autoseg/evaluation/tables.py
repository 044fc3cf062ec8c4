"""Scores as files: scores.json holds everything, scores.csv one row per case and class."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from autoseg.evaluation.summary import added_metrics
from autoseg.metrics.rules import is_defined
from autoseg.schema.scores import BUILT_IN_METRICS, Scores
from autoseg.support.files import atomic_write, write_artefact

JSON, CSV = "scores.json", "scores.csv"
_COUNTS = ("tp", "fp", "fn")


def write_scores(scores: Scores, folder: Path) -> None:
    """scores.json and scores.csv in `folder`."""
    write_artefact(folder / JSON, scores)
    with atomic_write(folder / CSV) as temporary, temporary.open("w", encoding="utf-8") as stream:
        _write_rows(scores, stream)


def _write_rows(scores: Scores, stream: TextIO) -> None:
    """One row per case and class; an undefined metric is an empty cell. Line ends are "\\n", as pandas writes them."""
    writer = csv.writer(stream, lineterminator="\n")
    added = added_metrics(scores.cases)
    writer.writerow(["case", "class", *_COUNTS, *BUILT_IN_METRICS, *added, "unit"])
    for case in scores.cases:
        for name, score in case.classes.items():
            values = (score.value(metric) for metric in (*BUILT_IN_METRICS, *added))
            cells = [f"{value:.6f}" if is_defined(value) else "" for value in values]
            writer.writerow([case.case, name, *(getattr(score, count) for count in _COUNTS), *cells, scores.unit])
