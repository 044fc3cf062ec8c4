"""Masks against references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.schema.scores import Scores
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.evaluation.external import Tested


def evaluate(
    predictions: str | Path, references: str | Path, output: str | Path | None = None, tolerance: float = 2.0
) -> Scores:
    """Scores of a folder of masks, written as scores.json and scores.csv into `output` (default: beside the masks).

    tolerance: of the surface Dice, in the unit of the distances.
    """
    from autoseg.evaluation.evaluate import evaluate_folders

    return evaluate_folders(Path(predictions), Path(references), output=Path(output) if output else None, tolerance=tolerance)


def evaluate_external(
    dataset: str | int,
    other: str | int,
    *,
    models: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    tolerance: float = 2.0,
    device: str = "auto",
    root: Root = None,
) -> list[Tested]:
    """Every trained fold of `models` (None: all) on another dataset; `compare` then shows what is left of their Dice.

    labels: label of `dataset` -> label of `other` or "background", where their names differ.
    """
    from autoseg.evaluation.external import evaluate_external as test
    from autoseg.prediction.predictor import trained_models
    from autoseg.support.errors import AutosegError

    workspace = Workspace.at(root)
    found, elsewhere = workspace.dataset(dataset), workspace.dataset(other)
    chosen = list(models or trained_models(found.results))
    if not chosen:
        raise AutosegError(f"{found.name} has no trained models", f"autoseg_train {found.number} MODEL all")
    return [tested for model in chosen for tested in test(found, model, elsewhere, labels, device=device, tolerance=tolerance)]
