"""Predict a fold's validation cases at their original size, for out-of-fold scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from autoseg.io import mask_ending
from autoseg.io.raw_dataset import RawDataset
from autoseg.prediction import ood_detection
from autoseg.prediction.files import predict_jobs
from autoseg.prediction.inference_metadata import VALIDATION, InferenceMetadata
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.pipeline import OutputOptions
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.progress_log import RECORD as PREDICTION
from autoseg.preprocessing.array_dataset import ArrayDataset, OutdatedArrays, preprocessing_hash
from autoseg.schema.appearance import Appearance
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import atomic_directory, read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training.checkpoint import Trained, read_split

FOLDER = VALIDATION


def predict_fold(
    dataset: Dataset,
    model: str,
    fold: int,
    *,
    device: str = "auto",
    tta: bool | None = None,
    overlays: int = 24,
    which: str = "best",
    folder: Path | None = None,
) -> Path:
    """Predict a trained fold's validation cases into <fold>/validation, one mask per case, named like the reference.

    The cases are those of the fold's own splits.json. overlays: at most this many evenly spread cases are also drawn with
    prediction and reference. folder: of the folds, if it is not the model's results folder. Returns the folder of the masks; it
    replaces an older one when it is complete. Raises AutosegError if the fold is not trained, SeveralProblems for missing or
    unreadable cases.
    """
    source, name = (dataset, model) if folder is None else (folder, folder.name)
    predictor = Predictor.load(source, name, [fold], device=device, tta=tta, which=which)
    fold_folder = (folder or dataset.model(model)) / f"fold_{fold}"
    split = read_split(fold_folder, fold)
    # No calibration: an existing one was fitted to these cases or to an older run.
    predictor.metadata = InferenceMetadata(
        describe_training(dataset, predictor.members[0], fold_folder, split.train)
    )
    raw = RawDataset.open(dataset)
    cases = {case.name: case for case in raw.cases}
    validation_cases = split.validation
    missing = [f"{name}: no image in {dataset.raw}" for name in validation_cases if name not in cases]
    if missing:
        raise SeveralProblems(f"fold {fold} was trained on images that are missing now:", missing, "put the images back")
    ending = mask_ending(raw.spec.file_ending)
    jobs = [
        PredictionJob(name=name, images=cases[name].images, output=name + ending, reference=cases[name].label)
        for name in validation_cases
    ]
    drawn = frozenset(validation_cases[:: max(1, math.ceil(len(validation_cases) / overlays))]) if overlays else frozenset()
    with atomic_directory(fold_folder / FOLDER, PREDICTION, PredictionRecord) as output:
        report = predict_jobs(predictor, jobs, output, OutputOptions(overlays=drawn))
        if report.failed:
            faults = [f"{name}: {problem}" for name, problem in report.failed.items()]
            raise SeveralProblems(f"validation cases of fold {fold} cannot be predicted:", faults, "fix these files")
    return fold_folder / FOLDER


def describe_training(dataset: Dataset, member: Trained, fold_folder: Path, cases: Sequence[str]) -> Appearance | None:
    """Measure a fold's training images in the preprocessed dataset; write appearance.json into the fold's folder.

    Returns None and writes nothing if the preprocessed dataset is missing, or was made for another plan since.
    """
    folder = dataset.array_folder(member.preprocessing.key)
    if not (folder / "index.json").is_file() or not dataset.fingerprint.is_file():
        return None
    try:
        store = ArrayDataset.open(folder, preprocessing_hash(member.preprocessing, member.plan.content_hash))
    except OutdatedArrays:
        return None
    spacings = {case.case: case.spacing for case in read_artefact(dataset.fingerprint, Fingerprint).cases}
    stored = [case for case in cases if case in store.cases]
    measured = [ood_detection.measure(store.image(case), store.original_size(case), spacings.get(case)) for case in stored]
    appearance = ood_detection.appearance(measured)
    write_artefact(fold_folder / ood_detection.FILE, appearance)
    return appearance
