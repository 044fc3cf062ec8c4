"""Which cases a person should look at first."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from autoseg.prediction.second_reader import trust_of
from autoseg.schema.prediction import PredictedCase
from autoseg.support.files import write_text

FILE = "review.csv"


def in_order(cases: Sequence[PredictedCase]) -> list[PredictedCase]:
    """Least trusted first: by confidence, and among all cases those with a warning before those without."""
    return sorted(cases, key=lambda case: (not case.warnings, trust_of(case), case.case))


def write_review_list(cases: Sequence[PredictedCase], folder: Path) -> Path:
    """review.csv in the folder of the masks, one row a case. Returns its path."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "confidence", "expected_dice", "agreement", "warnings"])
    for case in in_order(cases):
        writer.writerow([case.case, *numbers(case), "; ".join(case.warnings)])
    write_text(folder / FILE, stream.getvalue())
    return folder / FILE


def numbers(case: PredictedCase) -> tuple[str, str, str]:
    """Confidence, expected Dice and agreement as text; "" for what is not known."""
    found = case.confidence
    known = (found.value, found.expected_dice, found.agreement) if found else (math.nan,) * 3
    first, second, third = ("" if math.isnan(value) else f"{value:.3f}" for value in known)
    return first, second, third
