"""Calibration: expected Dice from confidence, fitted to the scores of out-of-fold cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.schema.prediction import Calibration, PredictionRecord
from autoseg.schema.scores import CaseScore, Scores
from autoseg.support.files import read_artefact

Vector = NDArray[np.float64]
# A line through fewer cases is mostly chance.
_MIN_CASES = 10
# Shown with every score that has no calibration.
UNCALIBRATED = f"not calibrated: needs {_MIN_CASES} out-of-fold cases"
# Empty masks are rare. Shrink their offset towards zero, as if this many more of them lay on the line.
_SHRINKAGE = 3.0
_MAX_PARTS = 100


def calibrate(folders: Iterable[Path]) -> Calibration | None:
    """Fit the calibration to folders of out-of-fold masks, each with prediction.json and scores.json.

    Skips folders without one of these files, and cases without recorded confidence. None if fewer than ten cases remain.
    """
    cases = [case for folder in folders for case in _read_cases(folder)]
    return fit([confidence for confidence, _, _ in cases], [dice for _, dice, _ in cases], [empty for _, _, empty in cases])


def _read_cases(folder: Path) -> list[tuple[float, float, bool]]:
    """(confidence, Dice, mask is empty) of each scored case in a folder."""
    if not (folder / "prediction.json").is_file() or not (folder / "scores.json").is_file():
        return []
    record = read_artefact(folder / "prediction.json", PredictionRecord)
    scores = read_artefact(folder / "scores.json", Scores)
    soft_dice = {case.case: case.confidence.soft_dice for case in record.cases if case.confidence is not None}
    return [(soft_dice[s.case], case_dice(s), is_empty(s)) for s in scores.cases if s.case in soft_dice]


def is_empty(score: CaseScore) -> bool:
    """True if the predicted mask has no foreground pixel."""
    return not any(count.tp + count.fp for count in score.classes.values())


def case_dice(score: CaseScore) -> float:
    """Mean Dice over the classes in either mask; 1 if both masks are empty.

    Classes absent from both masks do not count: an image whose only polyp was missed has Dice 0.
    """
    dices = [count.dice for count in score.classes.values() if not math.isnan(count.dice)]
    return sum(dices) / len(dices) if dices else 1.0


def fit(
    confidence: Sequence[float],
    dice: Sequence[float],
    empty: Sequence[bool],
    of: Literal["soft_dice", "value"] = "soft_dice",
) -> Calibration | None:
    """Least-squares line of Dice on confidence, with an offset for empty masks. None for fewer than ten cases.

    A line with negative slope is replaced by the mean.
    """
    x, y, is_empty_ = np.asarray(confidence, np.float64), np.asarray(dice, np.float64), np.asarray(empty, np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y, is_empty_ = x[finite], y[finite], is_empty_[finite]
    if len(x) < _MIN_CASES:
        return None
    slope, intercept, offset = _fit_line(x, y, is_empty_)
    error = float(np.abs(leave_one_out(x, y, is_empty_) - y).mean())
    return Calibration(
        cases=len(x),
        slope=round(slope, 5),
        intercept=round(intercept, 5),
        mean_absolute_error=round(error, 4),
        score=of,
        empty_offset=round(offset, 5),
    )


def leave_one_out(x: Vector, y: Vector, empty: Vector) -> Vector:
    """Expected Dice (N,) of each case, by a line fitted without it. x: confidence; y: Dice; empty: 1 for empty masks.

    Leave-one-out for up to 100 cases, 100-fold cross-validation for more.
    """
    expected = np.empty(len(x))
    size = max(1, math.ceil(len(x) / _MAX_PARTS))
    for start in range(0, len(x), size):
        left_out = slice(start, start + size)
        slope, intercept, offset = _fit_line(*(np.delete(column, left_out) for column in (x, y, empty)))
        expected[left_out] = np.clip(slope * x[left_out] + intercept + offset * empty[left_out], 0.0, 1.0)
    return expected


def _fit_line(x: Vector, y: Vector, empty: Vector) -> tuple[float, float, float]:
    """Slope and intercept over masks that are not empty, and the offset of empty ones.

    Not scikit-learn: every prediction run calibrates at its start, and that import takes as long as PyTorch's.
    """
    fitted = empty == 0
    if fitted.sum() < 2:
        fitted = np.ones_like(fitted)
    xs, ys = x[fitted], y[fitted]
    variation = float(((xs - xs.mean()) ** 2).sum())
    slope = max(float(((xs - xs.mean()) * (ys - ys.mean())).sum()) / variation, 0.0) if variation > 1e-12 else 0.0
    intercept = float(ys.mean()) - slope * float(xs.mean())
    residuals = (y - intercept - slope * x)[empty != 0]
    return slope, intercept, float(residuals.sum()) / (len(residuals) + _SHRINKAGE)
