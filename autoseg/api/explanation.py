"""Heat maps of trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from autoseg.api.checks import check_runs
from autoseg.api.options import DatasetId
from autoseg.schema.explanation import Explanation
from autoseg.support.workspace import Root, Workspace


def explain(
    dataset: DatasetId,
    model: str,
    fold: int,
    cases: Sequence[str] | None = None,
    *,
    layer: str = "auto",
    region: Literal["predicted", "reference"] = "predicted",
    device: str = "auto",
    root: Root = None,
) -> Explanation:
    """Draw heat maps (Grad-CAM and one gradient-free method) of cases; written to the fold's explanation/ folder.

    Needs `pip install 'autoseg[explain]'`.

    Args:
        dataset: id or name of the dataset.
        model: name of a trained model.
        fold: number of one of its trained folds.
        cases: names of cases (default: the first held-out ones).
        layer: dotted path of the module whose output is read; "auto": the model's default.
        region: where the logits are averaged: in the predicted or in the reference mask.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        For each case, class and method: the picture's file, and the fractions of the heat inside the reference region, in a
        ring around it, and outside.

    Raises:
        AutosegError: the fold is not trained, a case or layer does not exist, or the extra is not installed.
    """
    from autoseg.explanation.explain import explain_fold

    data = Workspace.at(root).dataset(dataset)
    check_runs(data, [data.fold(model, fold)])
    return explain_fold(data, model, fold, cases, layer=layer, region=region, device=device)
