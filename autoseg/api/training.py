"""Learning, and scoring what was learnt on the held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.api.options import DatasetId, Folds, PathLike, Settings, fold_numbers, setting_texts
from autoseg.api.planning import plan_and_preprocess
from autoseg.schema.frame import Results, Row, Tabular
from autoseg.schema.plan import Plan, Protocol, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import LOGGERS, MODELS
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Root, Workspace, labels_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class TrainedFold(Tabular):
    """A trained fold, scored.

    record: what makes the training and what it took. scores: of its best weights on the fold's held-out cases, at their
    original size. folder: where weights, curves and the held-out masks are.
    """

    record: RunRecord
    scores: Scores
    folder: Path

    def summary(self) -> str:
        record = self.record
        return f"{record.model} fold {record.fold} of {record.dataset}: {self.scores.summary()}"

    def to_rows(self) -> list[Row]:
        named = {"dataset": self.record.dataset, "model": self.record.model, "fold": self.record.fold}
        return [{**named, **row} for row in self.scores.to_rows()]

    def overview(self) -> list[Row]:
        return [{"model": self.record.model, "fold": self.record.fold, **row} for row in self.scores.overview()]


def train(
    dataset: DatasetId,
    model: str,
    folds: Folds | None = None,
    *,
    protocol: Protocol | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    pretrained: PathLike | None = None,
    restart: bool = False,
    log_to: Sequence[str] = (),
    handle_signals: bool = False,
    root: Root = None,
) -> Results[TrainedFold]:
    """Train folds of a model, then predict and score each fold's held-out cases. Interrupted runs are resumed.

    A dataset that is not planned yet, or for another protocol, is planned first. Where the plan asks for it, candidates for
    the learning rate are tried first.

    Args:
        dataset: id or name of the dataset.
        model: name of a model; `model_table` lists them.
        folds: numbers of the folds (default: all).
        protocol: "auto", "benchmark" or "quick" (default: the plan's).
        settings: dotted field of the plan -> value, for this training only: {"training.epochs": 50}.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        pretrained: "auto", "none" or the path of a checkpoint (default: the plan's choice).
        restart: begin again where an earlier run was finished or interrupted.
        log_to: names of loggers besides metrics.csv, such as "tensorboard", "mlflow", "wandb".
        handle_signals: for commands: Ctrl-C and SIGTERM write a checkpoint first, then raise KeyboardInterrupt or SystemExit.
            By default signals do what your program has them do.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The trained folds. Under torchrun all processes train together: the first one scores and returns them, the others
        return an empty list.

    Raises:
        AutosegError: the model, fold or a setting is unknown, weights are missing, or the folder holds another run.
        KeyboardInterrupt: on Ctrl-C; the last checkpoint stays, and the next call resumes there.
    """
    from autoseg.planning.overrides import apply_overrides
    from autoseg.training.distributed import distributed_context
    from autoseg.training.lr_search import with_searched_rate
    from autoseg.training.train_fold import train_fold

    MODELS.check(model)
    texts = setting_texts(settings)
    start = None if pretrained is None else str(pretrained)
    LOGGERS.check(*log_to)
    found = Workspace.at(root).dataset(dataset)
    trained: Results[TrainedFold] = Results()
    with distributed_context() as team:
        if team.is_main:
            _prepare(found, model, protocol, texts, device, root)
        team.wait()
        plan = apply_overrides(read_artefact(found.plan, Plan), texts)
        splits = read_artefact(found.splits, Splits, f"autoseg_plan_and_preprocess {found.number}")
        chosen = _existing_folds(found, splits, fold_numbers(folds))
        plan, search = with_searched_rate(
            found, plan, splits, model, device=device, pretrained=start, team=team, handle_signals=handle_signals
        )
        for fold in chosen:
            record = train_fold(
                found, plan, splits, model, fold, device=device, pretrained=start, restart=restart, team=team, search=search,
                log_to=log_to, handle_signals=handle_signals,
            )  # fmt: skip
            if team.is_main:
                trained.append(TrainedFold(record, _score_fold(found, model, splits, fold, device), found.fold(model, fold)))
    return trained


def _existing_folds(found: Dataset, splits: Splits, numbers: list[int] | None) -> list[int]:
    """The folds asked for (None: all). Raises AutosegError where there is no such fold."""
    chosen = list(range(len(splits.folds))) if numbers is None else numbers
    for fold in chosen:
        if not 0 <= fold < len(splits.folds):
            raise AutosegError(f"there is no fold {fold}", f"{found.name} is split into folds 0 to {len(splits.folds) - 1}")
    return chosen


def _prepare(
    found: Dataset, model: str, protocol: Protocol | None, settings: Mapping[str, str], device: str, root: Root
) -> None:
    """A plan on disk that has the model, and the arrays it needs under `settings`."""
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.overrides import apply_overrides
    from autoseg.preprocessing.preprocess import preprocess_dataset

    plan = apply_overrides(_plan_to_train(found, model, protocol, device, root), settings)
    preprocess_dataset(found, RawDataset.open(found), plan.preprocessing[plan.models[model].preprocessing])


def _plan_to_train(found: Dataset, model: str, protocol: Protocol | None, device: str, root: Root) -> Plan:
    remedy = f"autoseg_plan_and_preprocess {found.number}"
    if not found.plan.exists():
        logger.info(f"{found.name} is not planned yet: planning it now")
        return plan_and_preprocess(found.name, protocol=protocol or "auto", models=[model], device=device, root=root)
    plan = read_artefact(found.plan, Plan, remedy)
    if protocol is not None and plan.protocol != protocol:
        logger.info(f"{found.name} is planned for {plan.protocol}: planning it for {protocol} now")
        return plan_and_preprocess(found.name, protocol=protocol, models=list(plan.models), device=device, root=root)
    if model not in plan.models:
        raise AutosegError(
            f"the plan of {found.name} is for {', '.join(plan.models)}, not for {model}",
            f"{remedy} --protocol {plan.protocol} --models {','.join([*plan.models, model])}",
        )
    return plan


def _score_fold(found: Dataset, model: str, splits: Splits, fold: int, device: str) -> Scores:
    from autoseg.evaluation.evaluate import evaluate_folders
    from autoseg.prediction.validation import predict_fold

    folder = predict_fold(found, model, fold, device=device)
    return evaluate_folders(folder, labels_folder(found), cases=splits.folds[fold].validation)
