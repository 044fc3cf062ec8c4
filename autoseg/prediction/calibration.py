"""From confidence to the Dice to expect, by what out-of-fold cases scored."""

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
# With fewer cases a line says more of chance than of the model.
_FEWEST = 10
# Empty masks are few: what they add to the line is drawn towards nothing as by so many cases that lie on it.
_DRAWN = 3.0
_PARTS = 100


def calibrate(folders: Iterable[Path]) -> Calibration | None:
    """The calibration by folders of out-of-fold masks, each with its prediction.json and scores.json.

    Folders that lack one of them, or were predicted before confidence was recorded, are left out. None where fewer than
    ten cases remain.
    """
    known = [case for folder in folders for case in _judged(folder)]
    return fit([one for one, _, _ in known], [dice for _, dice, _ in known], [empty for _, _, empty in known])


def _judged(folder: Path) -> list[tuple[float, float, bool]]:
    """Confidence, Dice and whether nothing was found, of each case of a folder of scored masks."""
    if not (folder / "prediction.json").is_file() or not (folder / "scores.json").is_file():
        return []
    record = read_artefact(folder / "prediction.json", PredictionRecord)
    scores = read_artefact(folder / "scores.json", Scores)
    known = {case.case: case.confidence.soft_dice for case in record.cases if case.confidence is not None}
    return [(known[score.case], case_dice(score), is_empty(score)) for score in scores.cases if score.case in known]


def is_empty(score: CaseScore) -> bool:
    """Whether the mask holds no class at all."""
    return not any(one.tp + one.fp for one in score.classes.values())


def case_dice(score: CaseScore) -> float:
    """Mean Dice over the classes that stand in either mask; 1 where nothing was there and nothing was found.

    A class that was rightly not found does not help: an image whose only polyp was missed has Dice 0, however many other
    classes the dataset knows.
    """
    found = [one.dice for one in score.classes.values() if not math.isnan(one.dice)]
    return sum(found) / len(found) if found else 1.0


def fit(
    confidence: Sequence[float],
    dice: Sequence[float],
    empty: Sequence[bool],
    of: Literal["soft_dice", "value"] = "soft_dice",
) -> Calibration | None:
    """Least squares of Dice on confidence, and what it is off by where nothing was found; a line that falls is replaced by
    the mean. None where fewer than ten cases are known."""
    x, y, nothing = np.asarray(confidence, np.float64), np.asarray(dice, np.float64), np.asarray(empty, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y, nothing = x[known], y[known], nothing[known]
    if len(x) < _FEWEST:
        return None
    slope, intercept, added = _line(x, y, nothing)
    error = float(np.abs(by_the_others(x, y, nothing) - y).mean())
    return Calibration(
        cases=len(x),
        slope=round(slope, 5),
        intercept=round(intercept, 5),
        mean_absolute_error=round(error, 4),
        score=of,
        empty_offset=round(added, 5),
    )


def by_the_others(x: Vector, y: Vector, empty: Vector) -> Vector:
    """Each case's expected Dice (N,) by a line that has not seen it. x: confidence; y: Dice; empty: 1 where nothing was found.

    Leave-one-out up to a hundred cases; more are left out in a hundred parts, so that time grows with their number only.
    """
    expected = np.empty(len(x))
    size = max(1, math.ceil(len(x) / _PARTS))
    for start in range(0, len(x), size):
        left_out = slice(start, start + size)
        slope, intercept, added = _line(*(np.delete(column, left_out) for column in (x, y, empty)))
        expected[left_out] = np.clip(slope * x[left_out] + intercept + added * empty[left_out], 0.0, 1.0)
    return expected


def _line(x: Vector, y: Vector, empty: Vector) -> tuple[float, float, float]:
    """Slope and intercept of the masks that show something, and what an empty one adds.

    Three lines of arithmetic: every prediction calibrates as it starts, and importing scikit-learn takes as long as PyTorch.
    """
    shown = empty == 0
    if shown.sum() < 2:
        shown = np.ones_like(shown)
    across, up = x[shown], y[shown]
    spread = float(((across - across.mean()) ** 2).sum())
    slope = max(float(((across - across.mean()) * (up - up.mean())).sum()) / spread, 0.0) if spread > 1e-12 else 0.0
    intercept = float(up.mean()) - slope * float(across.mean())
    missed = (y - intercept - slope * x)[empty != 0]
    return slope, intercept, float(missed.sum()) / (len(missed) + _DRAWN)
