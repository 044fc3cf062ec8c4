"""metrics.csv: a row an epoch, added as it ends; rows beyond the checkpoint a run goes on from are dropped."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from autoseg.support.files import os_errors_as_autoseg_errors, write_text

NAME = "metrics.csv"
Row = dict[str, float]


class MetricsLog:
    """Columns: epoch (from 1), loss, learning_rate, dice (mean), dice_<class>, seconds, validation_seconds,
    data_wait (share of `seconds` spent waiting for batches), skipped (steps so far whose loss was not a number).
    Epochs without a validation have no Dice."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._path = folder / NAME
        self.columns = (
            "epoch", "loss", "learning_rate", "dice", *(f"dice_{name}" for name in classes),
            "seconds", "validation_seconds", "data_wait", "skipped",
        )
        self.rows: list[Row] = []

    def begin(self, epochs_done: int) -> None:
        """Keep the rows of the first `epochs_done` epochs of an earlier part of the run; 0 begins anew."""
        self.rows = [row for row in self._read() if row["epoch"] <= epochs_done]
        write_text(self._path, self._text(header=True, rows=self.rows))

    def append(self, row: Row) -> None:
        assert row.keys() <= set(self.columns), row.keys()
        self.rows.append(row)
        with os_errors_as_autoseg_errors(self._path), self._path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(self._text(header=False, rows=[row]))

    def _text(self, header: bool, rows: Sequence[Row]) -> str:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        return stream.getvalue()

    def _read(self) -> list[Row]:
        if not self._path.exists():
            return []
        rows = []
        with self._path.open(encoding="utf-8", newline="") as stream:
            for fields in csv.DictReader(stream):
                try:
                    row = {key: float(value) for key, value in fields.items() if key in self.columns and value}
                except (TypeError, ValueError):
                    # The last line of a run that was cut off while it wrote.
                    continue
                if "epoch" in row:
                    rows.append(row)
        return rows
