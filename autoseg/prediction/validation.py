"""The cases a fold held back, predicted at their original size, for scores nobody trained on."""

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
from autoseg.prediction.pipeline import Wanted
from autoseg.prediction.predictor import Predictor
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.appearance import Appearance
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Splits
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import atomic_directory, read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training.checkpoint import Trained

FOLDER = VALIDATION


def predict_fold(
    dataset: Dataset,
    model: str,
    fold: int,
    *,
    device: str = "auto",
    tta: bool = False,
    overlays: int = 24,
    which: str = "best",
) -> Path:
    """Masks of a trained fold's validation cases in <fold>/validation, one per case, named like the reference.

    The cases are those of the splits the fold was trained with. overlays: how many of them, evenly spread, are also
    drawn with prediction and reference, in a subfolder.
    Returns the folder, which takes the place of an older one when it is whole. Raises AutosegError where the fold is not
    trained, SeveralProblems where cases are gone or unreadable.
    """
    predictor = Predictor.load(dataset, model, [fold], device=device, tta=tta, which=which)
    home = dataset.fold(model, fold)
    splits = read_artefact(home / "splits.json", Splits, f"train the fold again: autoseg_train {dataset.number} {model} {fold}")
    # Whatever calibration lies there is of these very cases, or of an older run.
    predictor.knowledge = InferenceMetadata(describe_training(dataset, predictor.members[0], home, splits.folds[fold].train))
    raw = RawDataset.open(dataset)
    cases = {case.name: case for case in raw.cases}
    held_back = splits.folds[fold].validation
    gone = [f"{name}: no image in {dataset.raw}" for name in held_back if name not in cases]
    if gone:
        raise SeveralProblems(f"fold {fold} was trained on other data than lies there now:", gone, "put the images back")
    ending = mask_ending(raw.spec.file_ending)
    jobs = [
        PredictionJob(name=name, images=cases[name].images, output=name + ending, reference=cases[name].label)
        for name in held_back
    ]
    drawn = frozenset(held_back[:: max(1, math.ceil(len(held_back) / overlays))]) if overlays else frozenset()
    with atomic_directory(home / FOLDER) as folder:
        report = predict_jobs(predictor, jobs, folder, Wanted(overlays=drawn))
        if report.failed:
            faults = [f"{name}: {problem}" for name, problem in report.failed.items()]
            raise SeveralProblems(f"validation cases of fold {fold} cannot be predicted:", faults, "mend the files named")
    return home / FOLDER


def describe_training(dataset: Dataset, member: Trained, home: Path, cases: Sequence[str]) -> Appearance | None:
    """How a fold's training images look to its network, from the array store, written into the fold's folder.

    None, and nothing written, where the store they were trained from is gone.
    """
    folder = dataset.array_folder(member.preparation.key)
    if not (folder / "index.json").is_file() or not dataset.fingerprint.is_file():
        return None
    store = ArrayDataset.open(folder)
    spacings = {case.case: case.spacing for case in read_artefact(dataset.fingerprint, Fingerprint).cases}
    known = [case for case in cases if case in store.cases]
    measured = [ood_detection.measure(store.image(case), store.original_size(case), spacings.get(case)) for case in known]
    found = ood_detection.appearance(measured)
    write_artefact(home / ood_detection.FILE, found)
    return found
