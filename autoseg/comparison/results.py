"""Results of finished trainings, checked for completeness."""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.comparison.external_masks import SCORES, scores_of, validation_folders
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
from autoseg.support.workspace import Dataset, model_folder_name, seed_of_folder
from autoseg.training import checkpoint

logger = logging.getLogger(__name__)

EXTERNAL = "external"


@dataclass(frozen=True, kw_only=True)
class FoldResults:
    """One finished fold. folder: of the run. masks: folder of the held-out cases' masks. prediction: None if not recorded."""

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


@dataclass(frozen=True, kw_only=True)
class ModelResults:
    """Folds of a model. Or masks of another program (in the folder `external`) with their scores, of each of nnU-Net's folds or
    of all cases, and no folds. family: of such masks."""

    model: str
    folds: dict[int, FoldResults]
    scores: dict[int, Scores]
    external: Path | None = None
    family: str = ""

    @property
    def external_folds(self) -> tuple[int, ...]:
        """nnU-Net's; empty for masks of all cases in one folder."""
        is_one_folder = self.external is None or (self.external / SCORES).is_file()
        return () if is_one_folder else tuple(self.scores)

    @property
    def cases(self) -> dict[str, CaseScore]:
        """Every held-out case's score."""
        return {case.case: case for scores in self.scores.values() for case in scores.cases}

    @property
    def first(self) -> FoldResults:
        """Any fold, for values that all folds have in common."""
        return next(iter(self.folds.values()))

    def mask_of(self, case: str) -> Path | None:
        """Path of the predicted mask of a held-out case; None if there is none."""
        if self.external is not None:
            folders = [self.external, *validation_folders(self.external).values()]
        else:
            folders = [fold.masks for fold in self.folds.values()]
        paths = (path for folder in folders for path in folder.glob(f"{case}.*") if path.suffix not in (".npz", ".json"))
        return next((path for path in paths if path.name.split(".")[0] == case.split(".")[0]), None)


@dataclass(frozen=True)
class DatasetResults:
    """All models of a dataset. spec: its dataset.json at the time of the training. seeds: model -> seed -> other trainings."""

    dataset: Dataset
    spec: DatasetSpec
    models: dict[str, ModelResults]
    seeds: dict[str, dict[int, ModelResults]] = field(default_factory=dict)

    @property
    def trained(self) -> dict[str, ModelResults]:
        """Models with folds, without external masks."""
        return {name: model for name, model in self.models.items() if model.folds}

    @property
    def case_groups(self) -> dict[str, str]:
        """Case -> group (see `Splits.case_groups`)."""
        groups: dict[str, str] = {}
        for model in self.trained.values():
            groups |= model.first.splits.case_groups(self.spec.groups)
        return groups


def load_results(
    dataset: Dataset,
    models: Sequence[str] | None = None,
    folds: Collection[int] | None = None,
    external_masks: Mapping[str, Path] | None = None,
    family: str = EXTERNAL,
) -> DatasetResults:
    """Every finished and scored fold of a dataset's models.

    models, folds: only these. external_masks: name -> folder of masks of another program, see `external_masks`, all of one
    family; or another results folder of autoseg, of the same cases and folds. Unfinished folds are left out with a warning.
    Raises AutosegError if no fold is finished, SeveralProblems if one of `models` has no finished fold, or a file is missing or
    damaged.
    """
    trained = trained_models(dataset.results)
    unknown = [f"{name}: no finished fold in {dataset.results}" for name in models or () if name not in trained]
    if unknown:
        raise SeveralProblems(
            f"these models are not trained on {dataset.name}:", unknown, f"trained: {', '.join(trained) or 'none'}"
        )
    loaded: dict[str, ModelResults] = {}
    faults: list[str] = []
    seeds: dict[str, dict[int, ModelResults]] = {}
    own = {name: dataset.model(name) for name in models or trained}
    also = external_masks or {}
    for name in own.keys() & also.keys():
        raise AutosegError(f"{name!r} is already the name of a trained model", f"give what is in {also[name]} another name")
    elsewhere = {name: folder for name, folder in also.items() if trained_folds(folder)}
    for name, folder in (own | elsewhere).items():
        results = _read_model(name, folder, folds, faults)
        if results is None:
            continue
        loaded[name] = results
        others = _other_seeds(results, folder, folds, faults)
        if others:
            seeds[name] = others
    if faults:
        raise SeveralProblems(
            f"the results of {dataset.name} cannot be compared:",
            faults,
            "run autoseg_train again: it scores the trained folds",
        )
    if not loaded:
        raise AutosegError(f"{dataset.name} has no finished trainings", f"autoseg_train {dataset.number} MODEL all")
    spec = read_artefact(next(iter(loaded.values())).first.folder / checkpoint.DATASET, DatasetSpec)
    splits = next(iter(loaded.values())).first.splits
    external = {
        name: ModelResults(
            model=name, folds={}, scores=scores_of(name, folder, dataset, spec, splits, folds), external=folder, family=family
        )
        for name, folder in also.items()
        if name not in elsewhere
    }
    return DatasetResults(dataset, spec, loaded | external, seeds)


def _read_model(name: str, folder: Path, folds: Collection[int] | None, faults: list[str]) -> ModelResults | None:
    """The finished folds in a model's folder; None if there are none. What is wrong is added to `faults`."""
    fold_results: dict[int, FoldResults] = {}
    for fold, path in sorted(trained_folds(folder).items()):
        if folds is not None and fold not in folds:
            continue
        try:
            results = _read_fold(path)
        except AutosegError as error:
            faults.append(f"{name}, fold {fold}: {error.problem}")
            continue
        if results is not None:
            fold_results[fold] = results
    scores = {fold: one.scores for fold, one in fold_results.items()}
    return ModelResults(model=name, folds=fold_results, scores=scores) if fold_results else None


def _other_seeds(
    own: ModelResults, folder: Path, folds: Collection[int] | None, faults: list[str]
) -> dict[int, ModelResults]:
    """Seed -> the trainings of other seeds next to a model's folder."""
    others = {}
    for path in sorted(folder.parent.glob(f"{glob.escape(folder.name)}-seed*")):
        found = seed_of_folder(path.name)
        if found is None or model_folder_name(found[0]) != folder.name:
            continue
        other = _read_model(path.name, path, folds, faults)
        if other is not None and _is_same_training(own, other, found[1]):
            others[found[1]] = other
    return others


def _is_same_training(own: ModelResults, other: ModelResults, seed: int) -> bool:
    """Whether trainings differ in their seed only; else they are left out, with a warning."""

    def settings_of(model: ModelResults) -> list[object]:
        record, plan = model.first.record, model.first.plan
        learning = replace(plan.training, seed=0, search_epochs=0, learning_rates=())
        return [record.model, record.variant, record.epochs_done, record.learning_rate, record.batch_size, learning]

    same = settings_of(own) == settings_of(other) and all(run.record.seed == seed for run in other.folds.values())
    if not same:
        logger.warning(f"{other.model} is left out: its trainings differ from those of {own.model} in more than the seed")
    return same and seed != own.first.record.seed


def _read_fold(folder: Path) -> FoldResults | None:
    record = read_artefact(folder / checkpoint.RECORD, RunRecord)
    if record.status != "finished":
        logger.warning(f"{folder} is left out: {record.status} after {record.epochs_done} of {record.epochs_planned} epochs")
        return None
    masks = folder / FOLDER
    prediction = read_artefact(masks / PREDICTION, PredictionRecord) if (masks / PREDICTION).exists() else None
    if prediction is not None and record.identity not in prediction.identities.values():
        raise AutosegError(f"{masks} contains masks of another run than {folder / checkpoint.RECORD}")
    splits, scores = read_artefact(folder / checkpoint.SPLITS, Splits), read_artefact(masks / SCORES, Scores)
    if {case.case for case in scores.cases} != set(checkpoint.read_split(folder, record.fold).validation):
        raise AutosegError(f"{masks / SCORES} does not score the held-out cases of the fold")
    return FoldResults(
        folder=folder,
        masks=masks,
        record=record,
        plan=read_artefact(folder / checkpoint.PLAN, Plan),
        splits=splits,
        scores=scores,
        prediction=prediction,
    )

