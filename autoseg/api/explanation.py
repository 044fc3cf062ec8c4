"""Where a trained network looks."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.schema.explanation import Explanation
from autoseg.support.workspace import Root, Workspace


def explain(
    dataset: str | int,
    model: str,
    fold: int,
    cases: Sequence[str] | None = None,
    *,
    layer: str = "auto",
    region: str = "predicted",
    device: str = "auto",
    root: Root = None,
) -> Explanation:
    """Heat maps (Grad-CAM and one gradient-free method) of cases, into the fold's explanation/ folder, with the share of the
    heat inside the true region, in a ring around it, and outside. Needs the extra [explain].
    """
    from autoseg.explanation.explain import explain_fold

    found = Workspace.at(root).dataset(dataset)
    return explain_fold(found, model, fold, cases, layer=layer, region=region, device=device)
