"""From what a caller names to a predictor: a dataset's models, the best of them, or a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.model_selection import read_best
from autoseg.prediction.predictor import Predictor
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Root, Workspace

# In place of a model's name: what `find_best` chose.
BEST = "best"


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
    if bundle is not None:
        return load_bundle(Path(bundle), device=device, tta=tta)
    if dataset is None or not model:
        raise AutosegError("it is not said which networks to use", "name a dataset and a model, or a bundle")
    if model in (BEST, [BEST], (BEST,)) and not isinstance(dataset, Path):
        return _best(Workspace.at(root).dataset(dataset), folds, device, tta)
    return Predictor.load(dataset, model, folds, device=device, tta=tta, root=root)


def _best(dataset: Dataset, folds: Sequence[int] | None, device: str, tta: bool) -> Predictor:
    choice = read_best(dataset)
    chosen = choice.folds if folds is None else folds
    predictor = Predictor.load(
        dataset, choice.models, chosen, device=device, tta=tta, postprocessing=choice.postprocessing
    )
    if choice.calibration is not None and len(choice.models) > 1:
        predictor.knowledge = replace(predictor.knowledge, calibration=choice.calibration)
    return predictor
