"""From what a caller names to a predictor: a dataset's models, the best of them, or a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.prediction.predictor import Predictor
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Root


def load_predictor(
    dataset: str | int | Path | None = None,
    model: str | Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    *,
    bundle: str | Path | None = None,
    device: str = "auto",
    tta: bool = False,
    root: Root = None,
) -> Predictor:
    """See `autoseg.api.predict`. Raises AutosegError where it is not said which networks to use."""
    if dataset is None or not model:
        raise AutosegError("it is not said which networks to use", "name a dataset and a model, or a bundle")
    return Predictor.load(dataset, model, folds, device=device, tta=tta, root=root)
