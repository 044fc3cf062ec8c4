"""Train models, and score their held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.api.checks import check_plans, check_runs, current_plan
from autoseg.api.options import DatasetId, Folds, PathLike, Settings, fold_numbers, setting_texts
from autoseg.api.planning import check_training, plan_again, plan_and_preprocess, planning_command
from autoseg.schema.frame import Results, Row, Tabular
from autoseg.schema.plan import Plan, Protocol, Splits
from autoseg.schema.run import RunRecord, choices_text
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.os_errors import is_refusal
from autoseg.support.workspace import Dataset, Root, Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class TrainedFold(Tabular):
    """A trained fold with its scores.

    record: configuration and cost of the training. scores: of the best weights on the fold's held-out cases, at original
    size. folder: contains weights, curves and the held-out masks.
    """

    record: RunRecord
    scores: Scores
    folder: Path

    def summary(self) -> str:
        record = self.record
        return f"{record.model} fold {record.fold} of {record.dataset}: {self.scores.summary()}"

    def to_rows(self) -> list[Row]:
        identity = {"dataset": self.record.dataset, "model": self.record.model, "fold": self.record.fold}
        return [{**identity, **row} for row in self.scores.to_rows()]

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
    replan: bool = False,
    extend: int | None = None,
    deterministic: bool = False,
    log_to: Sequence[str] = (),
    break_lock: bool = False,
    handle_signals: bool = False,
    root: Root = None,
) -> Results[TrainedFold]:
    """Train folds of a model, then predict and score each fold's held-out cases. Interrupted runs are resumed.

    A dataset without a plan, or with a plan for another protocol, is planned first. If the plan asks for it, the learning rate
    is searched first.

    Args:
        dataset: id or name of the dataset.
        model: name of a model; `model_table` lists them.
        folds: numbers of the folds (default: all).
        protocol: "auto", "benchmark" or "quick" (default: the plan's).
        settings: dotted field of the plan -> value, for this training only: {"training.epochs": 50}.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        pretrained: "auto", "study", "none" or the path of a checkpoint (default: the plan's choice).
        restart: start again. A finished or interrupted run is kept until the new one has its first checkpoint, and put back
            if it gets none.
        replan: plan again, with the same options, if images, masks or dataset.json have changed since the plan was made.
        extend: train finished folds on, to so many epochs in all, with the settings they were trained with. The learning rate
            goes on as in a run of so many epochs. run.json and comparisons name it. Not for the benchmark protocol.
        deterministic: on a GPU too, the same training gives the same weights to the last bit: only algorithms that repeat are
            used, which is slower. A run must be resumed with the same choice. Without it a GPU may add up gradients in any
            order, and equal runs differ slightly. On a CPU they are equal anyway.
        log_to: names of loggers besides metrics.csv, such as "tensorboard", "mlflow", "wandb".
        break_lock: train although the folder is locked by a process of which it is not known whether it runs, for example in
            another container.
        handle_signals: for commands: Ctrl-C and SIGTERM write a checkpoint first, then raise KeyboardInterrupt or SystemExit.
            By default signal handlers do not change.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The trained folds. Under torchrun all processes train together: the main process scores and returns them, the others
        return an empty list.

    Raises:
        AutosegError: the model, fold or a setting is unknown, weights are missing, the folder contains another run, images or
            masks have changed since the plan was made, the splits leak, or an operation of the network has no deterministic
            form and one was asked for.
        KeyboardInterrupt: on Ctrl-C; the next call resumes from the last checkpoint.
    """
    from autoseg.planning.overrides import apply_overrides
    from autoseg.training.distributed import distributed_context
    from autoseg.training.extension import extended_plan
    from autoseg.training.loggers import check_loggers
    from autoseg.training.lr_search import with_searched_rate
    from autoseg.training.train_fold import is_finished, train_fold
    from autoseg.weights.pretrained import CHOICES, weights_file

    texts = setting_texts(settings)
    if extend is not None and (protocol or texts or pretrained or restart or replan or deterministic):
        raise AutosegError(
            "--extend trains a run on with its own settings",
            "leave out --protocol, --set, --epochs, --pretrained, --restart, --replan and --deterministic",
        )
    weights = None if pretrained is None else str(pretrained)
    # Whatever can be wrong in the call is found before the dataset is planned, which takes minutes.
    check_loggers(log_to)
    if weights not in (None, *CHOICES):
        weights_file(str(weights))
    data = Workspace.at(root).dataset(dataset)
    check_training(data, [model], texts)
    trained: Results[TrainedFold] = Results()
    with distributed_context() as context:
        if context.is_main:
            _prepare(data, model, protocol, texts, device=device, root=root, replan=replan)
        context.barrier()
        plan = apply_overrides(read_artefact(data.plan, Plan), texts)
        splits = read_artefact(data.splits, Splits, f"autoseg_plan_and_preprocess {data.number}")
        selected = _existing_folds(data, splits, fold_numbers(folds))
        left = [fold for fold in selected if restart or not is_finished(data.fold(model, fold))]
        search, repeats = None, dict.fromkeys(selected, deterministic)
        if extend is not None:
            plans = {fold: extended_plan(data.fold(model, fold), extend) for fold in selected}
            repeats = {fold: read_artefact(data.fold(model, fold) / "run.json", RunRecord).deterministic for fold in selected}
        else:
            if context.is_main and left:
                _log_expected_time(plan, model, len(left))
            plan, search = with_searched_rate(
                data, plan, splits, model, device=device, pretrained=weights, team=context, handle_signals=handle_signals,
                later_epochs=len(left) * plan.training.epochs, deterministic=deterministic, break_lock=break_lock,
            )  # fmt: skip
            plans = dict.fromkeys(selected, plan)
        for fold in selected:
            left = [other for other in left if other != fold]
            record = train_fold(
                data, plans[fold], splits, model, fold, device=device, pretrained=weights, restart=restart, team=context,
                search=search, log_to=log_to, handle_signals=handle_signals, later_epochs=len(left) * plan.training.epochs,
                extend=extend is not None, deterministic=repeats[fold], break_lock=break_lock,
            )  # fmt: skip
            if context.is_main:
                trained.append(_scored(data, record, splits, data.fold(model, fold), device))
    return trained


def train_trial(
    dataset: DatasetId,
    model: str,
    fold: int,
    trial: str,
    *,
    device: str = "auto",
    deterministic: bool = False,
    log_to: Sequence[str] = (),
    break_lock: bool = False,
    handle_signals: bool = False,
    root: Root = None,
) -> Results[TrainedFold]:
    """Train a fold by the plan.json and splits.json of a folder below the dataset's results, into its fold_<fold>; then predict
    and score the fold's held-out cases. An interrupted run is resumed.

    Args:
        dataset: id or name of the dataset.
        model: name of a model of that plan.
        fold: number of a fold of those splits.
        trial: the folder, by its path below the dataset's results.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        deterministic: see `train`.
        log_to: names of loggers besides metrics.csv, such as "tensorboard", "mlflow", "wandb".
        break_lock: see `train`.
        handle_signals: see `train`.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The trained fold. Under torchrun the other processes return an empty list.

    Raises:
        AutosegError: a file of the folder is missing or does not fit, or images or masks have changed since the plan was made.
        KeyboardInterrupt: on Ctrl-C; the next call resumes from the last checkpoint.
    """
    from autoseg.training.distributed import distributed_context
    from autoseg.training.loggers import check_loggers
    from autoseg.training.train_fold import train_fold

    check_loggers(log_to)
    data = Workspace.at(root).dataset(dataset)
    folder = data.trial(trial)
    remedy = "a trial's folder holds the plan and the splits of its training"
    plan, splits = read_artefact(folder / "plan.json", Plan, remedy), read_artefact(folder / "splits.json", Splits, remedy)
    trained: Results[TrainedFold] = Results()
    with distributed_context() as context:
        if context.is_main:
            check_plans(data, {folder / f"fold_{fold}": plan})
            _preprocess(data, plan, model)
        context.barrier()
        record = train_fold(
            data, plan, splits, model, fold, device=device, team=context, log_to=log_to, trial=folder / f"fold_{fold}",
            handle_signals=handle_signals, deterministic=deterministic, break_lock=break_lock,
        )  # fmt: skip
        if context.is_main:
            trained.append(_scored(data, record, splits, folder / f"fold_{fold}", device))
    return trained


def _log_expected_time(plan: Plan, model: str, folds: int) -> None:
    """Say what was measured when the dataset was planned."""
    from autoseg.planning.time_budget import expected_again, show_time

    timing = expected_again(plan, model)
    if timing is None:
        logger.info(f"the time of {model} was not measured when {plan.dataset} was planned")
        return
    training = plan.training
    trials = f"{len(training.learning_rates)} trials of {training.search_epochs} epochs and " if timing.trial_steps else ""
    hours = timing.hours + (folds - 1) * (timing.hours * timing.steps / (timing.steps + timing.trial_steps))
    several = f"{folds} folds of " if folds > 1 else ""
    logger.info(
        f"{model}: {trials}{several}{training.epochs} epochs ({timing.steps} steps): about {show_time(hours)} "
        f"({timing.seconds_per_step:.2g} s a step, measured on {timing.machine})"
    )


def _existing_folds(data: Dataset, splits: Splits, numbers: list[int] | None) -> list[int]:
    """The selected folds (None: all). Raises AutosegError if a fold does not exist."""
    selected = list(range(len(splits.folds))) if numbers is None else numbers
    for fold in selected:
        if not 0 <= fold < len(splits.folds):
            raise AutosegError(f"there is no fold {fold}", f"{data.name} is split into folds 0 to {len(splits.folds) - 1}")
    return selected


def _prepare(
    data: Dataset, model: str, protocol: Protocol | None, settings: Mapping[str, str], *, device: str, root: Root, replan: bool
) -> None:
    """Make sure that the plan and the arrays of the model are on disk and belong to the raw files."""
    from autoseg.planning.overrides import apply_overrides

    plan = current_plan(data, _plan_to_train(data, model, protocol, device, root), replan, device, root)
    _preprocess(data, apply_overrides(plan, settings), model)


def _preprocess(data: Dataset, plan: Plan, model: str) -> None:
    """Make sure that the arrays of the model are on disk. Raises AutosegError if the plan has no such model."""
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.preprocessing.preprocess import preprocess_dataset

    if model not in plan.models:
        raise AutosegError(f"the plan of {plan.dataset} is for {', '.join(plan.models)}, not for {model}", "name one of these")
    config = plan.preprocessing[plan.models[model].preprocessing]
    preprocess_dataset(data, RawDataset.open(data), config, content_hash=plan.content_hash)


def _plan_to_train(data: Dataset, model: str, protocol: Protocol | None, device: str, root: Root) -> Plan:
    remedy = f"autoseg_plan_and_preprocess {data.number}"
    if not data.plan.exists():
        logger.info(f"{data.name} is not planned yet: planning it now")
        return plan_and_preprocess(data.name, protocol=protocol or "auto", models=[model], device=device, root=root)
    plan = read_artefact(data.plan, Plan, remedy)
    if protocol is not None and plan.protocol != protocol:
        return plan_again(data, plan, protocol, [model], device, root)
    if model not in plan.models:
        raise AutosegError(
            f"the plan of {data.name} is for {', '.join(plan.models)}, not for {model}",
            planning_command(data, plan, model),
        )
    return plan


def _scored(data: Dataset, record: RunRecord, splits: Splits, folder: Path, device: str) -> TrainedFold:
    return TrainedFold(record, _score_fold(data, record, splits, folder, device), folder)


def _score_fold(data: Dataset, record: RunRecord, splits: Splits, folder: Path, device: str) -> Scores:
    """Where nothing can be written, the scores that were stored with the run are read, if they are of its weights."""
    try:
        return _predict_and_score(data, record, splits, folder, device)
    except AutosegError as error:
        stored, weights = folder / "validation" / "scores.json", folder / "best.pt"
        if not (is_refusal(error) and stored.is_file() and stored.stat().st_mtime >= weights.stat().st_mtime):
            raise
        logger.warning(f"{error.problem}; the scores are those that were stored with the run")
        return read_artefact(stored, Scores)


def _predict_and_score(data: Dataset, record: RunRecord, splits: Splits, fold_folder: Path, device: str) -> Scores:
    from autoseg.evaluation.evaluate import evaluate_folders
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.prediction.validation import predict_fold
    from autoseg.training.deterministic import deterministic_algorithms

    check_runs(data, [fold_folder])
    with deterministic_algorithms(record.deterministic):
        folder = predict_fold(data, record.model, record.fold, device=device, folder=fold_folder.parent)
    raw, cases = RawDataset.open(data), splits.folds[record.fold].validation
    plan = read_artefact(folder.parent / "plan.json", Plan)
    preprocessing = plan.preprocessing[plan.models[record.model].preprocessing]
    return evaluate_folders(
        folder, raw.references, raw.spec, cases=cases, notes=(choices_text(record.saw_scored_cases),),
        resized=preprocessing if plan.training.scored_size == "input" else None,
    )  # fmt: skip
