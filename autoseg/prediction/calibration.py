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
from autoseg.support.random_state import python_random_state_kept
from autoseg.training.checkpoint import read_case_groups

Vector = NDArray[np.float64]
# (confidence, Dice, mask is empty, group) of a scored case.
_Case = tuple[float, float, bool, str]
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
    confidence, dice, empty, groups = zip(*cases, strict=True) if cases else ((), (), (), ())
    return fit(confidence, dice, empty, groups)


def _read_cases(folder: Path) -> list[_Case]:
    """The scored cases in the folder of a fold's out-of-fold masks."""
    if not (folder / "prediction.json").is_file() or not (folder / "scores.json").is_file():
        return []
    record = read_artefact(folder / "prediction.json", PredictionRecord)
    scores = read_artefact(folder / "scores.json", Scores)
    groups = read_case_groups(folder.parent)
    soft_dice = {case.case: case.confidence.soft_dice for case in record.cases if case.confidence is not None}
    return [
        (soft_dice[score.case], case_dice(score), is_empty(score), groups.get(score.case, score.case))
        for score in scores.cases
        if score.case in soft_dice
    ]


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
    groups: Sequence[str],
    of: Literal["soft_dice", "value"] = "soft_dice",
) -> Calibration | None:
    """Least-squares line of Dice on confidence, with an offset for empty masks. None for fewer than ten cases.

    A line with negative slope is replaced by the mean. groups: of the cases, as the folds keep them whole (patients,
    near duplicates). The error is judged on groups that the line has not seen; not-a-number if all cases are of one.
    """
    x, y, is_empty_ = np.asarray(confidence, np.float64), np.asarray(dice, np.float64), np.asarray(empty, np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y, is_empty_ = x[finite], y[finite], is_empty_[finite]
    if len(x) < _MIN_CASES:
        return None
    own_groups = [group for group, used in zip(groups, finite, strict=True) if used]
    slope, intercept, offset = _fit_line(x, y, is_empty_)
    error = float(np.abs(expected_dice_of_held_out(x, y, is_empty_, own_groups) - y).mean())
    return Calibration(
        cases=len(x),
        groups=len(set(own_groups)),
        slope=round(slope, 5),
        intercept=round(intercept, 5),
        mean_absolute_error=round(error, 4),
        score=of,
        empty_offset=round(offset, 5),
    )


def expected_dice_of_held_out(x: Vector, y: Vector, empty: Vector, groups: Sequence[str]) -> Vector:
    """Expected Dice (N,) of each case, by a line fitted without its group. x: confidence; y: Dice; empty: 1 for empty masks.

    Leave-one-group-out for up to 100 groups, 100 folds of whole groups for more. Not-a-number if there is only one group.
    """
    expected = np.full(len(x), np.nan)
    parts = min(len(set(groups)), _MAX_PARTS)
    if parts < 2:
        return expected
    with python_random_state_kept():
        # Imported here, because it takes a second.
        from sklearn.model_selection import GroupKFold

    for fitted, held_out in GroupKFold(parts).split(x, groups=groups):
        slope, intercept, offset = _fit_line(x[fitted], y[fitted], empty[fitted])
        expected[held_out] = np.clip(slope * x[held_out] + intercept + offset * empty[held_out], 0.0, 1.0)
    return expected


def _fit_line(x: Vector, y: Vector, empty: Vector) -> tuple[float, float, float]:
    """Slope and intercept over masks that are not empty, and the offset of empty ones."""
    fitted = empty == 0
    if fitted.sum() < 2:
        fitted = np.ones_like(fitted)
    xs, ys = x[fitted], y[fitted]
    variation = float(((xs - xs.mean()) ** 2).sum())
    slope = max(float(((xs - xs.mean()) * (ys - ys.mean())).sum()) / variation, 0.0) if variation > 1e-12 else 0.0
    intercept = float(ys.mean()) - slope * float(xs.mean())
    residuals = (y - intercept - slope * x)[empty != 0]
    return slope, intercept, float(residuals.sum()) / (len(residuals) + _SHRINKAGE)
