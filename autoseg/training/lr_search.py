"""Learning rate search: each candidate of the plan trains briefly on fold 0; the best one is used for all folds.

A trial is a normal run with the full schedule in few epochs. It can be interrupted and resumed. Files:

    <model>/learning_rate/learning_rate.json       candidates, their cost, the chosen one
    <model>/learning_rate/rate_0.0001/             run.json, metrics.csv, progress.png of a trial
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoseg.io.raw_dataset import read_description
from autoseg.planning import overrides
from autoseg.planning.training_schedule import trial_interval
from autoseg.schema.frame import count
from autoseg.schema.plan import MONITOR_NAMES, Decision, Monitor, Plan, Selection, Splits
from autoseg.schema.run import RateSearch, RateTrial, RunRecord
from autoseg.support.files import hash_text, is_artefact, read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import checkpoint
from autoseg.training.config_hash import config_hash, digest
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.initial_weights import require_weights
from autoseg.training.run_lock import run_lock
from autoseg.training.selection import training_split
from autoseg.training.train_fold import starting_weights, train_fold
from autoseg.training.trainer import Diverged

logger = logging.getLogger(__name__)

FOLDER, NAME = "learning_rate", "learning_rate.json"
_FOLD = 0
# Warm-up of a trial takes at most one epoch in this many.
_WARMUP = 4


def needs_search(plan: Plan, model: str) -> bool:
    """Whether the plan asks for a search: not if the user set the model's rate, or if there is only one candidate."""
    training = plan.training
    return training.search_epochs > 0 and len(training.learning_rates) > 1 and _field(model) not in plan.overrides


def read_search(dataset: Dataset, model: str) -> RateSearch | None:
    """The result of a model's search, None before it is finished."""
    search = _read_artefact(dataset, model)
    return search if search is not None and search.tried else None


def with_searched_rate(
    dataset: Dataset,
    plan: Plan,
    splits: Splits,
    model: str,
    *,
    device: str = "auto",
    pretrained: str | None = None,
    team: DistributedContext = SINGLE_PROCESS,
    handle_signals: bool = False,
    later_epochs: int = 0,
    deterministic: bool = False,
    break_lock: bool = False,
) -> tuple[Plan, RateSearch | None]:
    """The plan with the model's best learning rate, and the search. Without a search: the plan as it is, and None.

    An earlier search with the same inputs is reused. Raises what `train_fold` raises; a candidate whose loss diverges
    counts as 0. later_epochs: of the folds that follow, for the remaining time. break_lock: see `run_lock`.
    """
    if not needs_search(plan, model):
        return plan, None
    trial_plan = _trial_plan(plan, model, bool(splits.folds[_FOLD].inner))
    key = _search_key(dataset, plan, trial_plan, splits, model, pretrained=pretrained, deterministic=deterministic)
    search = read_search(dataset, model)
    if search is None or search.identity != key:
        require_weights(dataset, plan, [model], pretrained)
        folder = dataset.model(model) / FOLDER
        with run_lock(folder, break_lock) if team.is_main else nullcontext():
            if team.is_main:
                _start_search(dataset, model, key)
            team.barrier()
            train = partial(
                train_fold, splits=splits, model=model, fold=_FOLD,
                device=device, pretrained=pretrained, team=team, handle_signals=handle_signals, deterministic=deterministic,
                break_lock=break_lock,
            )  # fmt: skip
            trials = []
            rates = list(plan.training.learning_rates)
            epochs = count(trial_plan.training.epochs, "epoch")
            for number, rate in enumerate(rates, 1):
                if team.is_main:
                    logger.info(f"trying learning rate {rate:g} ({number} of {len(rates)}, {epochs} each)")
                later = later_epochs + (len(rates) - number) * trial_plan.training.epochs
                one = partial(train, later_epochs=later)
                trials.append(_run_trial(dataset, trial_plan, model, rate, one, quiet=number > 1))
            beyond = beyond_the_edge(trials, plan.training.monitor)
            if beyond is not None and _may_widen(plan):
                if team.is_main:
                    logger.info(f"the best rate is at the edge of the list: trying {beyond:g} too ({epochs})")
                one = partial(train, later_epochs=later_epochs)
                trials.append(_run_trial(dataset, trial_plan, model, beyond, one, quiet=True))
            search = _search_result(trials, trial_plan, key)
            if team.is_main:
                write_artefact(folder / NAME, search)
                _delete_checkpoints(folder)
            team.barrier()
    if team.is_main:
        scores = ", ".join(f"{trial.rate:g}: {trial.value(search.monitor):.3f}" for trial in search.tried)
        logger.info(
            f"{dataset.name}, {model}: learning rate {search.chosen:g}, by {MONITOR_NAMES[search.monitor]} after "
            f"{search.epochs} epochs ({scores})"
        )
        if (beyond := beyond_the_edge(search.tried, search.monitor)) is not None:
            logger.warning(
                f"{search.chosen:g} is at the edge of the rates that were tried, so a better one may lie beyond: "
                f"add {beyond:g} to training.learning_rates to find out"
            )
    return _with_rate(plan, model, search), search


def beyond_the_edge(trials: Sequence[RateTrial], monitor: Monitor) -> float | None:
    """The next rate beyond the best one if that is the highest or lowest of several and better than its neighbour."""
    ordered = sorted(trials, key=lambda trial: trial.rate)
    best = max(ordered, key=lambda trial: trial.value(monitor))
    if len(ordered) < 2 or best.rate not in (ordered[0].rate, ordered[-1].rate):
        return None
    neighbour = ordered[1] if best is ordered[0] else ordered[-2]
    # As many digits as a user would write.
    return float(f"{best.rate**2 / neighbour.rate:.2g}") if best.value(monitor) > neighbour.value(monitor) else None


def _trial_plan(plan: Plan, model: str, has_inner: bool) -> Plan:
    """Short, and compared on inner cases, unless the plan lets the scored cases or those of the next fold choose."""
    selection: Selection = "inner" if has_inner else "held_out"
    if plan.training.selection in ("held_out", "next_fold"):
        selection = plan.training.selection
    epochs = plan.training.search_epochs
    every = trial_interval(plan.training)
    training = replace(
        plan.training, epochs=epochs, validate_every=every, patience=0, search_epochs=0, selection=selection
    )
    model_plan = plan.models[model]
    model_plan = replace(model_plan, learning_rate=0.0, warmup_epochs=min(model_plan.warmup_epochs, epochs // _WARMUP))
    return replace(plan, training=training, models={**plan.models, model: model_plan})


def _search_key(
    dataset: Dataset, plan: Plan, trial_plan: Plan, splits: Splits, model: str, pretrained: str | None, deterministic: bool
) -> str:
    """Hash of all inputs of the search."""
    scheme = read_description(dataset.description).label_scheme()
    weights = starting_weights(dataset, plan, model, pretrained, quiet=True)
    split = training_split(splits, _FOLD, trial_plan.training.selection, plan.dataset)
    hashed = weights.hash() if weights else ""
    parts = config_hash(trial_plan, trial_plan.models[model], scheme, split, hashed, deterministic)
    widening = ["may be widened"] if _may_widen(plan) else []
    return hash_text(digest(parts), json.dumps(plan.training.learning_rates), *widening)


def _may_widen(plan: Plan) -> bool:
    """The benchmark's candidates are the study's."""
    return plan.protocol == "auto"


def _read_artefact(dataset: Dataset, model: str) -> RateSearch | None:
    path = dataset.model(model) / FOLDER / NAME
    return read_artefact(path, RateSearch, f"delete {path.parent} to search again") if path.exists() else None


def _start_search(dataset: Dataset, model: str, key: str) -> None:
    """Record which search is running. Trials of an earlier search are deleted: they are not results. Other folders stay."""
    before = _read_artefact(dataset, model)
    if before is not None and before.identity == key:
        return
    folder = dataset.model(model) / FOLDER
    for path in folder.glob("rate_*"):
        if not path.is_symlink() and is_artefact(path / checkpoint.RECORD, RunRecord):
            shutil.rmtree(path)
    write_artefact(folder / NAME, RateSearch(fold=_FOLD, epochs=0, identity=key, tried=(), chosen=0.0, steps=0, seconds=0.0))


def _run_trial(
    dataset: Dataset, trial_plan: Plan, model: str, rate: float, train: Callable[..., RunRecord], quiet: bool
) -> RateTrial:
    """quiet: says nothing about weights, because an earlier trial did."""
    plan = replace(trial_plan, models={**trial_plan.models, model: replace(trial_plan.models[model], learning_rate=rate)})
    folder = dataset.model(model) / FOLDER / f"rate_{rate:g}"
    try:
        record = train(dataset, plan, trial=folder, quiet_weights=quiet)
    except Diverged as error:
        logger.warning(error.problem)
        return RateTrial(rate=rate, class_mean_dice=0.0, micro_dice=0.0, micro_iou=0.0, dice={}, steps=0, seconds=0.0)
    return RateTrial(
        rate=rate,
        class_mean_dice=record.class_mean_dice,
        micro_dice=record.micro_dice,
        micro_iou=record.micro_iou,
        dice=record.dice,
        steps=record.steps,
        seconds=record.seconds,
    )


def _search_result(trials: list[RateTrial], trial_plan: Plan, key: str) -> RateSearch:
    # Of equal candidates the first: they are sorted from high to low, and a high rate trains faster.
    training = trial_plan.training
    best = max(trials, key=lambda trial: trial.value(training.monitor))
    steps, seconds = sum(trial.steps for trial in trials), sum(trial.seconds for trial in trials)
    return RateSearch(
        fold=_FOLD, epochs=training.epochs, identity=key, tried=tuple(trials), chosen=best.rate, steps=steps, seconds=seconds,
        cases=training.selection if training.selection in ("inner", "next_fold") else "held_out", monitor=training.monitor,
    )  # fmt: skip


def _delete_checkpoints(folder: Path) -> None:
    """Keep only the records of the trials: their weights are not needed."""
    for name in (checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS):
        for path in folder.glob(f"rate_*/{name}"):
            path.unlink()


def _with_rate(plan: Plan, model: str, search: RateSearch) -> Plan:
    scores = ", ".join(f"{trial.rate:g} gave {trial.value(search.monitor):.3f}" for trial in search.tried)
    where = {"inner": "inner cases of fold", "next_fold": "cases of the fold after"}.get(search.cases, "fold")
    reason = f"tried on {where} {search.fold} for {search.epochs} epochs each, by {MONITOR_NAMES[search.monitor]}: {scores}"
    models = {**plan.models, model: replace(plan.models[model], learning_rate=search.chosen)}
    return overrides.with_decision(replace(plan, models=models), Decision(_field(model), f"{search.chosen:g}", reason))


def _field(model: str) -> str:
    return f"models.{model}.learning_rate"
