"""The learning rate, chosen by trying: each candidate of the plan trains briefly on fold 0, the best by Dice serves all folds.

A trial is a run like any other, with the whole schedule in few epochs; it can be cut off and goes on. What it found stays
in the results, beside the folds:

    <model>/learning_rate/learning_rate.json       what was tried, what it cost, what was chosen
    <model>/learning_rate/rate_0.0001/             run.json, metrics.csv, progress.png of a trial
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from autoseg.io.raw_dataset import read_description
from autoseg.planning import overrides
from autoseg.schema.plan import Decision, Plan, Splits
from autoseg.schema.run import RateSearch, RateTrial, RunRecord
from autoseg.support.files import hash_text, read_artefact, write_artefact
from autoseg.support.workspace import Dataset
from autoseg.training import checkpoint
from autoseg.training.config_hash import config_hash, digest
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.run_lock import run_lock
from autoseg.training.train_fold import starting_weights, train_fold
from autoseg.training.trainer import Diverged

logger = logging.getLogger(__name__)

FOLDER, NAME = "learning_rate", "learning_rate.json"
_FOLD = 0
# Of a trial's epochs: validations, and the share that may be warm-up.
_VALIDATIONS, _WARMUP = 4, 4


def needs_search(plan: Plan, model: str) -> bool:
    """Whether the plan asks for a search: not where the user set the model's rate, or nothing is to choose from."""
    training = plan.training
    return training.search_epochs > 0 and len(training.learning_rates) > 1 and _subject(model) not in plan.overrides


def read_search(dataset: Dataset, model: str) -> RateSearch | None:
    """The outcome of a model's search, None before it is over."""
    search = _read(dataset, model)
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
) -> tuple[Plan, RateSearch | None]:
    """The plan with the model's best candidate for a learning rate, and how it was found; as it is where none is wanted.

    An earlier search is reused while all that decides it is the same. Raises what `train_fold` raises; a candidate whose
    loss stays no number counts as Dice 0.
    """
    if not needs_search(plan, model):
        return plan, None
    short = _shortened(plan, model)
    key = _key(dataset, plan, short, splits, model, pretrained)
    search = read_search(dataset, model)
    if search is None or search.identity != key:
        folder = dataset.results / model / FOLDER
        with run_lock(folder) if team.is_main else nullcontext():
            if team.is_main:
                _clear_for(dataset, model, key)
            team.wait()
            train = partial(
                train_fold, splits=splits, model=model, fold=_FOLD,
                device=device, pretrained=pretrained, team=team, handle_signals=handle_signals,
            )  # fmt: skip
            tried = []
            for rate in plan.training.learning_rates:
                if team.is_main:
                    logger.info(f"trying learning rate {rate:g}")
                tried.append(_try(dataset, short, model, rate, train))
            search = _chosen(tried, short.training.epochs, key)
            if team.is_main:
                write_artefact(folder / NAME, search)
                _forget_weights(folder)
            team.wait()
    if team.is_main:
        shown = ", ".join(f"{trial.rate:g}: {trial.best_dice:.3f}" for trial in search.tried)
        logger.info(f"{dataset.name}, {model}: learning rate {search.chosen:g}, by Dice after {search.epochs} epochs ({shown})")
    return _with_rate(plan, model, search), search


def _shortened(plan: Plan, model: str) -> Plan:
    epochs = plan.training.search_epochs
    every = max(1, epochs // _VALIDATIONS)
    training = replace(plan.training, epochs=epochs, validate_every=every, patience=0, search_epochs=0)
    planned = plan.models[model]
    planned = replace(planned, learning_rate=0.0, warmup_epochs=min(planned.warmup_epochs, epochs // _WARMUP))
    return replace(plan, training=training, models={**plan.models, model: planned})


def _key(dataset: Dataset, plan: Plan, short: Plan, splits: Splits, model: str, pretrained: str | None) -> str:
    """Hash of all that decides the outcome."""
    scheme = read_description(dataset.description).label_scheme()
    weights = starting_weights(dataset, plan.models[model], pretrained, quiet=True)
    parts = config_hash(short, short.models[model], scheme, splits.folds[_FOLD], weights.hash() if weights else "")
    return hash_text(digest(parts), json.dumps(plan.training.learning_rates))


def _read(dataset: Dataset, model: str) -> RateSearch | None:
    path = dataset.results / model / FOLDER / NAME
    return read_artefact(path, RateSearch, f"delete {path.parent} to search again") if path.exists() else None


def _clear_for(dataset: Dataset, model: str, key: str) -> None:
    """Note which search is under way; trials of another one make room, without asking: they are nobody's results."""
    before = _read(dataset, model)
    if before is not None and before.identity == key:
        return
    folder = dataset.results / model / FOLDER
    for path in folder.glob("rate_*"):
        shutil.rmtree(path)
    write_artefact(folder / NAME, RateSearch(fold=_FOLD, epochs=0, identity=key, tried=(), chosen=0.0, steps=0, seconds=0.0))


def _try(dataset: Dataset, short: Plan, model: str, rate: float, train: Callable[..., RunRecord]) -> RateTrial:
    plan = replace(short, models={**short.models, model: replace(short.models[model], learning_rate=rate)})
    folder = dataset.results / model / FOLDER / f"rate_{rate:g}"
    try:
        record = train(dataset, plan, trial=folder)
    except Diverged as error:
        logger.warning(error.problem)
        return RateTrial(rate=rate, best_dice=0.0, dice={}, steps=0, seconds=0.0)
    return RateTrial(rate=rate, best_dice=record.best_dice, dice=record.dice, steps=record.steps, seconds=record.seconds)


def _chosen(tried: list[RateTrial], epochs: int, key: str) -> RateSearch:
    # The first of equals: candidates stand from high to low, and a high rate gets further in the same time.
    best = max(tried, key=lambda trial: trial.best_dice)
    steps, seconds = sum(trial.steps for trial in tried), sum(trial.seconds for trial in tried)
    return RateSearch(
        fold=_FOLD, epochs=epochs, identity=key, tried=tuple(tried), chosen=best.rate, steps=steps, seconds=seconds
    )


def _forget_weights(folder: Path) -> None:
    """Trials are kept for what they say, not to predict with."""
    for name in (checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS):
        for path in folder.glob(f"rate_*/{name}"):
            path.unlink()


def _with_rate(plan: Plan, model: str, search: RateSearch) -> Plan:
    shown = ", ".join(f"{trial.rate:g} gave Dice {trial.best_dice:.3f}" for trial in search.tried)
    because = f"tried on fold {search.fold} for {search.epochs} epochs each: {shown}"
    models = {**plan.models, model: replace(plan.models[model], learning_rate=search.chosen)}
    return overrides.with_decision(replace(plan, models=models), Decision(_subject(model), f"{search.chosen:g}", because))


def _subject(model: str) -> str:
    return f"models.{model}.learning_rate"
