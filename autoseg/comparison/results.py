"""What trainings left: gathered, checked to be whole, and read once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.prediction.predictor import trained_folds, trained_models
from autoseg.prediction.progress_log import RECORD as PREDICTION
from autoseg.prediction.validation import FOLDER
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import ModelPlan, Plan, Splits
from autoseg.schema.prediction import PredictionRecord
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import CaseScore, Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import checkpoint

logger = logging.getLogger(__name__)

SCORES = "scores.json"


@dataclass(frozen=True, kw_only=True)
class FoldResults:
    """One finished fold. folder: of the run. masks: of its held-out cases. prediction: None where it was not recorded."""

    folder: Path
    masks: Path
    record: RunRecord
    plan: Plan
    splits: Splits
    scores: Scores
    prediction: PredictionRecord | None

    @property
    def model_plan(self) -> ModelPlan:
        return self.plan.models[self.record.model]


@dataclass(frozen=True)
class ModelResults:
    """One model's folds; or masks from elsewhere, with the scores of all cases and no folds (`elsewhere`: their folder)."""

    model: str
    folds: dict[int, FoldResults]
    scores: dict[int, Scores]
    elsewhere: Path | None = None

    @property
    def cases(self) -> dict[str, CaseScore]:
        """Every held-out case's score."""
        return {case.case: case for scores in self.scores.values() for case in scores.cases}

    @property
    def first(self) -> FoldResults:
        """Any fold's, for what all folds share."""
        return next(iter(self.folds.values()))

    def mask_of(self, case: str) -> Path | None:
        """The predicted mask of a held-out case."""
        folders = [self.elsewhere] if self.elsewhere is not None else [fold.masks for fold in self.folds.values()]
        found = (path for folder in folders for path in folder.glob(f"{case}.*") if path.suffix not in (".npz", ".json"))
        return next((path for path in found if path.name.split(".")[0] == case.split(".")[0]), None)


@dataclass(frozen=True)
class DatasetResults:
    """All models of a dataset. spec: its description as the runs saw it."""

    dataset: Dataset
    spec: DatasetSpec
    models: dict[str, ModelResults]

    @property
    def trained(self) -> dict[str, ModelResults]:
        """Models that were trained here."""
        return {name: model for name, model in self.models.items() if model.folds}


def load_results(
    dataset: Dataset,
    models: Sequence[str] | None = None,
    folds: Collection[int] | None = None,
    also: Mapping[str, Path] | None = None,
) -> DatasetResults:
    """Every finished and scored fold of a dataset's models.

    models, folds: only these. also: name -> folder of masks of the dataset's cases that come from elsewhere, with their
    scores.json (see autoseg_evaluate). Folds that are not finished are named in a warning and left out. Raises AutosegError
    where nothing is left, SeveralProblems where a model that was asked for has nothing or a file is missing or damaged.
    """
    known = trained_models(dataset.results)
    unknown = [f"{name}: no finished fold in {dataset.results}" for name in models or () if name not in known]
    if unknown:
        raise SeveralProblems(
            f"these models are not trained on {dataset.name}:", unknown, f"trained: {', '.join(known) or 'none'}"
        )
    found: dict[str, ModelResults] = {}
    faults: list[str] = []
    for name in models or known:
        read: dict[int, FoldResults] = {}
        for fold, folder in sorted(trained_folds(dataset.results / name).items()):
            if folds is not None and fold not in folds:
                continue
            try:
                dataset_results = _read(folder)
            except AutosegError as error:
                faults.append(f"{name}, fold {fold}: {error.problem}")
                continue
            if dataset_results is not None:
                read[fold] = dataset_results
        if read:
            found[name] = ModelResults(name, read, {fold: one.scores for fold, one in read.items()})
    if faults:
        raise SeveralProblems(
            f"the results of {dataset.name} cannot be compared:",
            faults,
            "autoseg_train scores what it has trained: run it again",
        )
    if not found:
        raise AutosegError(f"{dataset.name} has no finished trainings", f"autoseg_train {dataset.number} MODEL all")
    spec = read_artefact(next(iter(found.values())).first.folder / checkpoint.DATASET, DatasetSpec)
    for name, folder in (also or {}).items():
        found[name] = _from_elsewhere(name, folder, found)
    return DatasetResults(dataset, spec, found)


def _read(folder: Path) -> FoldResults | None:
    record = read_artefact(folder / checkpoint.RECORD, RunRecord)
    if record.status != "finished":
        logger.warning(f"{folder} is left out: {record.status} after {record.epochs_done} of {record.epochs_planned} epochs")
        return None
    masks = folder / FOLDER
    prediction = read_artefact(masks / PREDICTION, PredictionRecord) if (masks / PREDICTION).exists() else None
    if prediction is not None and record.identity not in prediction.identities.values():
        raise AutosegError(f"{masks} holds masks of another run than {folder / checkpoint.RECORD}")
    splits, scores = read_artefact(folder / checkpoint.SPLITS, Splits), read_artefact(masks / SCORES, Scores)
    if {case.case for case in scores.cases} != set(splits.folds[record.fold].validation):
        raise AutosegError(f"{masks / SCORES} does not score the cases the fold held out")
    return FoldResults(
        folder=folder,
        masks=masks,
        record=record,
        plan=read_artefact(folder / checkpoint.PLAN, Plan),
        splits=splits,
        scores=scores,
        prediction=prediction,
    )


def _from_elsewhere(name: str, folder: Path, found: Mapping[str, ModelResults]) -> ModelResults:
    if name in found:
        raise AutosegError(f"{name!r} is trained here already", f"call the masks in {folder} something else")
    scores = read_artefact(folder / SCORES, Scores, f"autoseg_evaluate {folder} REFERENCES")
    classes = list(next(iter(found.values())).first.scores.classes)
    if list(scores.classes) != classes:
        raise AutosegError(
            f"{folder / SCORES} has the classes {', '.join(scores.classes)}, the trained models {', '.join(classes)}",
            "score the masks against the dataset's own labels (labelsTr)",
        )
    return ModelResults(name, {}, {0: scores}, folder)
