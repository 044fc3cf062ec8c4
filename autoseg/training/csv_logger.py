"""metrics.csv: one row per epoch. On resuming, rows after the checkpoint are dropped."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from autoseg.support.files import write_text
from autoseg.support.os_errors import os_errors_as_autoseg_errors

NAME = "metrics.csv"
Row = dict[str, float]
# Averages of a validation -> their columns.
AVERAGES = {"micro.dice": "micro_dice", "micro.iou": "micro_iou", "class_mean.dice": "class_mean_dice"}
# Older releases wrote the class mean only.
_OLD_COLUMNS = {"dice": "class_mean_dice"}


class MetricsLog:
    """Columns: epoch (from 1), loss, learning_rate, micro_dice and micro_iou (of the counts summed over the classes),
    class_mean_dice, dice_<class>, seconds, validation_seconds, data_wait (fraction of `seconds` spent waiting for batches),
    skipped (skipped steps so far: NaN or infinite loss). Epochs without a validation have no Dice."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._path = folder / NAME
        self.columns = (
            "epoch",
            "loss",
            "learning_rate",
            *AVERAGES.values(),
            *(f"dice_{name}" for name in classes),
            "seconds",
            "validation_seconds",
            "data_wait",
            "skipped",
        )
        self.rows: list[Row] = []

    def begin(self, epochs_done: int) -> None:
        """Keep the rows of the first `epochs_done` epochs; 0 starts a new file."""
        stored = [{key: value for key, value in row.items() if key in self.columns} for row in read_rows(self._path)]
        self.rows = [row for row in stored if row["epoch"] <= epochs_done]
        write_text(self._path, self._csv_text(header=True, rows=self.rows))

    def append(self, row: Row) -> None:
        assert row.keys() <= set(self.columns), row.keys()
        self.rows.append(row)
        with os_errors_as_autoseg_errors(self._path), self._path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(self._csv_text(header=False, rows=[row]))

    def _csv_text(self, header: bool, rows: Sequence[Row]) -> str:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        return stream.getvalue()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.csv, without empty cells; [] if there is no file."""
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as stream:
        for fields in csv.DictReader(stream):
            try:
                row = {_OLD_COLUMNS.get(key, key): float(value) for key, value in fields.items() if value}
            except (TypeError, ValueError):
                # Incomplete last line of an interrupted run.
                continue
            if "epoch" in row:
                rows.append(row)
    return rows
