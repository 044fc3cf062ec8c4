"""Score masks against references."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.checks import check_runs
from autoseg.api.options import DatasetId, Models, PathLike, model_names, output_folder
from autoseg.schema.frame import Results
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Root, Workspace

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from autoseg.evaluation.external import ExternalResult


def evaluate(
    predictions: PathLike,
    references: PathLike,
    output: PathLike | None = None,
    tolerance: float = 2.0,
    *,
    processes: bool = False,
) -> Scores:
    """Score a folder of masks against a folder of references; files are matched by name.

    Args:
        predictions: folder of predicted masks.
        references: folder of reference masks. Label names come from a dataset.json in or above it, else from the
            predictions' prediction.json, else from values. Masks with 0 and 255, JPEGs and others are read as
            `convert_folders` reads them.
        output: folder for scores.json and its tables (default: `predictions` if autoseg predicted them, else the scores are
            only returned).
        tolerance: of the normalised surface Dice, in the unit of the distances: mm if all references have a spacing,
            else pixels.
        processes: use worker processes from 2000 masks on, faster than threads on many cores. A script then needs
            `if __name__ == "__main__":` around the call.

    Returns:
        The scores of each case, of each class over all cases, and overall.

    Raises:
        AutosegError: masks are missing, cannot be read, differ in size from their reference, or have values that are no
            labels; the message lists all of them. Or the folders are swapped, or `output` holds images or masks of a dataset.
        UnsavedResult: the scores, its `result`, cannot be written.
    """
    from autoseg.evaluation.evaluate import evaluate_folders
    from autoseg.evaluation.labels import check_order, is_prediction_folder

    prediction_path, reference_path = Path(predictions), Path(references)
    check_order(prediction_path, reference_path)
    folder = output_folder(output) or (prediction_path if is_prediction_folder(prediction_path) else None)
    scores = evaluate_folders(
        prediction_path, reference_path, output=folder, tolerance=tolerance, processes=processes, write=folder is not None
    )
    if folder is None:
        logger.info(f"{prediction_path} has no prediction.json, so no scores were written there; -o DIR writes them")
    else:
        logger.info(f"scores.json, scores.csv and scores_summary.csv are in {folder}")
    return scores


def evaluate_external(
    dataset: DatasetId,
    other: DatasetId,
    *,
    models: Models | None = None,
    labels: Mapping[str, str] | None = None,
    tolerance: float = 2.0,
    device: str = "auto",
    root: Root = None,
) -> Results[ExternalResult]:
    """Test trained networks on another dataset. `compare` then shows how much their Dice drops.

    Args:
        dataset: id or name of the dataset the networks were trained on.
        other: id or name of the dataset to test them on.
        models: names of models (default: all that are trained); all of their trained folds are tested.
        labels: label of `dataset` -> label of `other`, or "background", if their names differ.
        tolerance: of the normalised surface Dice, in mm or pixels (see `evaluate`).
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        For each model and fold: the scores on `other`, and on the fold's held-out cases with the same labels.

    Raises:
        AutosegError: nothing is trained, a label has no counterpart, or a case cannot be predicted.
    """
    from autoseg.evaluation.external import evaluate_external as test
    from autoseg.prediction.predictor import trained_models

    workspace = Workspace.at(root)
    own, external = workspace.dataset(dataset), workspace.dataset(other)
    names = model_names(models) or list(trained_models(own.results))
    if not names:
        raise AutosegError(f"{own.name} has no trained models", f"autoseg_train {own.number} MODEL all")
    check_runs(own, own.runs(names))
    return Results(
        tested for model in names for tested in test(own, model, external, labels, device=device, tolerance=tolerance)
    )
