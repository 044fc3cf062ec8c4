"""Masks for new images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.prediction.export import Exported
    from autoseg.prediction.files import PredictionReport
    from autoseg.prediction.inputs import DicomMasks
    from autoseg.prediction.naming import Names
    from autoseg.schema.prediction import BestChoice


def predict(
    images: str | Path | Sequence[str | Path],
    output: str | Path,
    dataset: str | int | None = None,
    model: str | Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    *,
    bundle: str | Path | None = None,
    probabilities: bool = False,
    overlays: bool = False,
    references: str | Path | None = None,
    tta: bool = False,
    recursive: bool = False,
    overwrite: bool = True,
    strict: bool = False,
    names: Names = "auto",
    dicom_masks: DicomMasks | None = None,
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Masks for an image, several, or a folder of images, written to `output` in each image's own size and geometry.

    model: one, several to average, or "best" for what `find_best` chose; folds: those to average, None for all that are
    trained. bundle: a file `export` made, instead of dataset and model. overlays: also pictures with the contours;
    references: a folder of masks to draw beside them. tta: average over mirrored views. recursive: subfolders too.
    overwrite: False goes on where an earlier run was cut off. strict: stop at the first image that cannot be predicted.
    names: "auto" replaces names that could tell who is shown, "keep" none, "hide" all. dicom_masks: "seg", "png" or "nii".
    """
    from autoseg.prediction.files import predict_files
    from autoseg.prediction.loading import load_predictor

    predictor = load_predictor(dataset, model, folds, bundle=bundle, device=device, tta=tta, root=root)
    return predict_files(
        predictor,
        Path(images) if isinstance(images, str | Path) else [Path(path) for path in images],
        Path(output),
        probabilities=probabilities,
        overlays=overlays,
        references=Path(references) if references else None,
        recursive=recursive,
        overwrite=overwrite,
        strict=strict,
        names=names,
        dicom_masks=dicom_masks,
    )


def find_best(
    dataset: str | int, models: Sequence[str] | None = None, *, device: str = "auto", root: Root = None
) -> BestChoice:
    """The best model, pair or triple and the post-processing of each class, on out-of-fold predictions only.

    Written to the dataset's results as best.json; `predict(..., model="best")` uses it.
    """
    from autoseg.prediction import best

    return best.find_best(Workspace.at(root).dataset(dataset), models, device)


def export(
    dataset: str | int,
    models: str | Sequence[str],
    path: str | Path,
    folds: Sequence[int] | None = None,
    *,
    onnx: bool = False,
    root: Root = None,
) -> Exported:
    """Trained networks and all that predicting with them needs as one zip file; onnx: also an ONNX file for each."""
    from autoseg.prediction import export as exporting

    named = [models] if isinstance(models, str) else list(models)
    return exporting.export(Workspace.at(root).dataset(dataset), named, Path(path), folds, onnx)


def review_page(what: str | Path, *, cases: str | Path | None = None, device: str = "auto", root: Root = None) -> Any:
    """A page to try a bundle's or a dataset's networks and correct masks: gradio's Blocks, to be launched (extra [web]).

    cases: a folder for corrections; by default they become training cases of the dataset, or go to ./corrected.
    """
    from autoseg.prediction.page import build, session_for

    return build(session_for(what, Path(cases) if cases else None, device, root))
