"""Masks against references."""

from __future__ import annotations

from pathlib import Path

from autoseg.schema.scores import Scores


def evaluate(
    predictions: str | Path, references: str | Path, output: str | Path | None = None, tolerance: float = 2.0
) -> Scores:
    """Scores of a folder of masks, written as scores.json and scores.csv into `output` (default: beside the masks).

    tolerance: of the surface Dice, in the unit of the distances.
    """
    from autoseg.evaluation.evaluate import evaluate_folders

    return evaluate_folders(Path(predictions), Path(references), output=Path(output) if output else None, tolerance=tolerance)
