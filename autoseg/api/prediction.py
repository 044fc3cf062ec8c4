"""Masks for new images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.support.workspace import Root

if TYPE_CHECKING:
    from autoseg.prediction.files import PredictionReport


def predict(
    images: str | Path,
    output: str | Path,
    dataset: str | int,
    model: str,
    folds: Sequence[int] | None = None,
    *,
    probabilities: bool = False,
    overlays: bool = False,
    references: str | Path | None = None,
    tta: bool = False,
    recursive: bool = False,
    overwrite: bool = True,
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Masks for an image or a folder of images, written to `output` in each image's own size and geometry.

    folds: those to average, None for all that are trained. overlays: also pictures with the contours; references: a
    folder of masks to draw beside them. tta: average over mirrored views. recursive: subfolders too. overwrite: False
    leaves masks that are there.
    """
    from autoseg.prediction.files import predict_files
    from autoseg.prediction.predictor import Predictor

    predictor = Predictor.load(dataset, model, folds, device=device, tta=tta, root=root)
    return predict_files(
        predictor,
        Path(images),
        Path(output),
        probabilities=probabilities,
        overlays=overlays,
        references=Path(references) if references else None,
        recursive=recursive,
        overwrite=overwrite,
    )
