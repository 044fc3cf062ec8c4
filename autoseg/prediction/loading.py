"""Load a predictor from a dataset's models, from its best choice, or from a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.model_selection import read_best
from autoseg.prediction.predictor import Predictor
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Root, Workspace

# Used as a model name: the choice of `find_best`.
BEST = "best"


def load_predictor(
    dataset: str | int | Path | None = None,
    model: str | Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    *,
    bundle: str | Path | None = None,
    nnunet: str | Path | None = None,
    device: str = "auto",
    tta: bool | None = None,
    root: Root = None,
) -> Predictor:
    """See `autoseg.api.predict`. Raises AutosegError if no network is given."""
    if nnunet is not None:
        from autoseg.prediction.nnunet_predictor import NNUNetPredictor

        return NNUNetPredictor.read(Path(nnunet), folds, device, tta)
    if bundle is not None:
        return load_bundle(Path(bundle), device=device, tta=tta)
    if dataset is None or not model:
        raise AutosegError("no networks were given", "name a dataset and a model, a bundle, or a model of nnU-Net")
    if model in (BEST, [BEST], (BEST,)) and not isinstance(dataset, Path):
        return _load_best(Workspace.at(root).dataset(dataset), folds, device, tta)
    return Predictor.load(dataset, model, folds, device=device, tta=tta, root=root)


def _load_best(dataset: Dataset, folds: Sequence[int] | None, device: str, tta: bool | None) -> Predictor:
    choice = read_best(dataset)
    chosen_folds = choice.folds if folds is None else folds
    predictor = Predictor.load(
        dataset, choice.models, chosen_folds, device=device, tta=tta, postprocessing=choice.postprocessing
    )
    if choice.calibration is not None and len(choice.models) > 1:
        predictor.metadata = replace(predictor.metadata, calibration=choice.calibration)
    return predictor
