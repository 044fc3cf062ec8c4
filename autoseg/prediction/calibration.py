"""From confidence to the Dice to expect, by what out-of-fold cases scored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.schema.prediction import Calibration, PredictionRecord
from autoseg.schema.scores import CaseScore, Scores
from autoseg.support.files import read_artefact

# With fewer cases a line says more of chance than of the model.
_FEWEST = 10


def calibrate(folders: Iterable[Path]) -> Calibration | None:
    """The calibration by folders of out-of-fold masks, each with its prediction.json and scores.json.

    Folders that lack one of them, or were predicted before confidence was recorded, are left out. None where fewer than
    ten cases remain.
    """
    pairs = [pair for folder in folders for pair in confidence_and_dice(folder)]
    return fit([confidence for confidence, _ in pairs], [dice for _, dice in pairs])


def confidence_and_dice(folder: Path) -> list[tuple[float, float]]:
    """(confidence, Dice) of each case of a folder of scored masks."""
    if not (folder / "prediction.json").is_file() or not (folder / "scores.json").is_file():
        return []
    record = read_artefact(folder / "prediction.json", PredictionRecord)
    scores = read_artefact(folder / "scores.json", Scores)
    known = {case.case: case.confidence.soft_dice for case in record.cases if case.confidence is not None}
    return [(known[score.case], case_dice(score)) for score in scores.cases if score.case in known]


def case_dice(score: CaseScore) -> float:
    """Mean Dice over the classes; a class that is in neither mask was rightly not found and counts as 1."""
    found = [1.0 if math.isnan(one.dice) else one.dice for one in score.classes.values()]
    return sum(found) / len(found) if found else 1.0


def fit(
    confidence: Sequence[float], dice: Sequence[float], of: Literal["soft_dice", "value"] = "soft_dice"
) -> Calibration | None:
    """Least squares; a line that falls is replaced by the mean."""
    x, y = np.asarray(confidence, np.float64), np.asarray(dice, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < _FEWEST:
        return None
    slope, intercept = _line(x, y)
    others = [_line(np.delete(x, place), np.delete(y, place)) for place in range(len(x))]
    missed = [abs(min(max(a * x[place] + b, 0.0), 1.0) - y[place]) for place, (a, b) in enumerate(others)]
    return Calibration(len(x), round(slope, 5), round(intercept, 5), round(float(np.mean(missed)), 4), of)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    spread = float(((x - x.mean()) ** 2).sum())
    slope = max(float(((x - x.mean()) * (y - y.mean())).sum()) / spread, 0.0) if spread > 1e-12 else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())
