"""Predict image files, choose models, export them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.checks import check_runs
from autoseg.api.options import DatasetId, Folds, Models, PathLike, fold_numbers, model_names, output_folder
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.deidentify import Names
    from autoseg.prediction.export import Exported
    from autoseg.prediction.files import PredictionReport
    from autoseg.prediction.inputs import DicomMasks
    from autoseg.prediction.review_server import ReviewServer
    from autoseg.schema.prediction import BestChoice


def predict(
    images: PathLike | Sequence[PathLike],
    output: PathLike,
    dataset: DatasetId | None = None,
    model: Models | None = None,
    folds: Folds | None = None,
    *,
    bundle: PathLike | None = None,
    nnunet: PathLike | None = None,
    probabilities: bool = False,
    overlays: bool = False,
    references: PathLike | None = None,
    tta: bool | None = None,
    recursive: bool = False,
    overwrite: bool = True,
    strict: bool = False,
    names: Names = "auto",
    dicom_masks: DicomMasks | None = None,
    visible: bool = False,
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Write a mask for each image, in the image's size and geometry. For arrays see `Predictor`.

    Args:
        images: an image file, several, or a folder of images.
        output: folder for the masks and prediction.json.
        dataset: id or name of the dataset the model was trained on.
        model: name of a trained model, several to average, or "best" for the choice of `find_best`.
        folds: numbers of the folds to average (default: all that are trained).
        bundle: a file that `export` wrote, instead of dataset, model and folds.
        nnunet: results folder of a 2d model of nnU-Net v2 instead; predicts as nnU-Net does, mirrored as it was trained.
        probabilities: also write each class's probabilities, (K, H, W) float16, as <case>.npz.
        overlays: also write pictures with the contours.
        references: folder of reference masks to draw into the overlays.
        tta: average over mirrored views, slower and a little better, or not; None: as the plan says.
        recursive: take images of subfolders too.
        overwrite: False resumes an interrupted run and keeps existing masks.
        strict: stop at the first image that cannot be predicted.
        names: "auto" replaces file names that could identify a patient, "keep" none, "hide" all.
        dicom_masks: format of masks of DICOM images (default: "seg" where possible).
        visible: give PNG masks a palette, so that viewers show them in colours; their values stay class numbers.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The masks with areas, confidence and warnings, and the failed images with the reason.

    Raises:
        AutosegError: there is nothing to predict, nothing is trained, or the output cannot be written; with `strict` also
            for an image that cannot be read or does not fit.
    """
    from autoseg.prediction.files import predict_files
    from autoseg.prediction.loading import load_predictor

    models, numbers = model_names(model), fold_numbers(folds)
    predictor = load_predictor(
        dataset, models, numbers, bundle=bundle, nnunet=nnunet, device=device, tta=tta, root=root
    )
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
        visible=visible,
    )


def find_best(dataset: DatasetId, models: Models | None = None, *, device: str = "auto", root: Root = None) -> BestChoice:
    """Choose the best model, pair or triple and the post-processing of each class, on out-of-fold predictions only.

    Written to the dataset's results as best.json; `predict(..., model="best")` uses it.

    Args:
        dataset: id or name of the dataset.
        models: names of the models to choose from (default: all that are trained on the same folds).
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The chosen models, with the Dice of all candidates.

    Raises:
        AutosegError: no model is trained, or the models share no fold.
    """
    from autoseg.prediction import model_selection

    data, names = Workspace.at(root).dataset(dataset), model_names(models)
    check_runs(data, data.runs(names or None))
    return model_selection.find_best(data, names, device)


def export(
    dataset: DatasetId,
    models: Models,
    path: PathLike,
    folds: Folds | None = None,
    *,
    onnx: bool = False,
    runtime: bool = False,
    root: Root = None,
) -> Exported:
    """Write trained networks to one file, a bundle, which is all that prediction needs.

    Args:
        dataset: id or name of the dataset.
        models: name of a trained model, several to average, or "best" for the choice of `find_best`.
        path: the file to write; its name ends in .zip.
        folds: numbers of the folds to include (default: all that are trained).
        onnx: also write an ONNX file for each network, checked against torch. Needs `pip install 'autoseg[onnx]'`.
        runtime: also write the folder `<path without .zip>.runtime`, which predicts without autoseg. Needs the same.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The files that were written.

    Raises:
        AutosegError: nothing is trained, the name does not end in .zip, or a network cannot be exported.
    """
    from autoseg.prediction.export import export as write_bundle

    names = model_names(models) or []
    output_folder(Path(path).parent)
    return write_bundle(Workspace.at(root).dataset(dataset), names, Path(path), fold_numbers(folds), onnx, runtime)


def review_page(
    what: PathLike | int,
    *,
    cases: PathLike | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    device: str = "auto",
    root: Root = None,
) -> ReviewServer:
    """Serve a web page to try networks and correct masks. Needs `pip install 'autoseg[web]'`.

    Only who has the address with its token can use it. Uploads lie in a private folder until the server is closed.

    Args:
        what: id or name of a dataset, or the path of a bundle.
        cases: folder for corrections (default: training cases of the dataset; for a bundle ./corrected).
        host: another address of this machine, to use the page from other machines; the traffic is not encrypted.
        port: default: the first free one from 7860.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        A server: `.address` is the page's, `.run()` serves until Ctrl-C, `.start()` in a thread, `.close()` ends it.

    Raises:
        AutosegError: gradio is not installed, nothing is trained, or the host or port cannot be used.
    """
    from autoseg.prediction.review_app import build, session_for
    from autoseg.prediction.review_server import ReviewServer

    session = session_for(str(what), Path(cases) if cases else None, device, root)
    return ReviewServer(lambda: build(session), host, port)
