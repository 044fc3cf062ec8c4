"""The review list: cases in the order a person should look at them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from autoseg.prediction.second_reader import confidence_of
from autoseg.schema.prediction import PredictedCase
from autoseg.support.files import write_text

FILE = "review.csv"


def review_order(cases: Sequence[PredictedCase]) -> list[PredictedCase]:
    """Cases with warnings first, then the others; within both, the lowest confidence first."""
    return sorted(cases, key=lambda case: (not case.warnings, confidence_of(case), case.case))


def write_review_list(cases: Sequence[PredictedCase], folder: Path) -> Path:
    """Write review.csv into the folder of the masks, one row per case. Returns its path."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", confidence_heading(cases), "expected_dice", "agreement", "calibration", "warnings"])
    for case in review_order(cases):
        note = case.confidence.note if case.confidence else ""
        writer.writerow([case.case, *confidence_columns(case), note, "; ".join(case.warnings)])
    write_text(folder / FILE, stream.getvalue())
    return folder / FILE


def confidence_heading(cases: Sequence[PredictedCase]) -> str:
    """What to call the numbers: a confidence only if all of them are calibrated."""
    words = {case.confidence.word for case in cases if case.confidence}
    return "confidence" if words == {"confidence"} else "score"


def confidence_columns(case: PredictedCase) -> tuple[str, str, str]:
    """Confidence, expected Dice and agreement as text; "" for unknown values."""
    confidence = case.confidence
    values = (confidence.value, confidence.expected_dice, confidence.agreement) if confidence else (math.nan,) * 3
    first, second, third = ("" if math.isnan(value) else f"{value:.3f}" for value in values)
    return first, second, third
