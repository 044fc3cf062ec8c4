"""Trainings of a selection as jobs of the runner: their plans, their folders, their results.

    selection/<candidate>/plan.json                  the candidate's plan
    selection/<candidate>/level_<n>/plan.json        with the steps of this level; splits.json: the cases of the rungs
    selection/<candidate>/level_<n>/fold_0/          the training, as autoseg_train writes it
    <candidate>-<epochs>ep/plan.json, fold_0 ...     a confirmed candidate, next to the other models
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.models import registry
from autoseg.planning.overrides import max_warmup, with_decision
from autoseg.schema.plan import Decision, Fold, Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.runner import Job
from autoseg.schema.scores import Scores
from autoseg.schema.selection import SelectionCandidate
from autoseg.selection.candidates import PlannedCandidate, is_linear
from autoseg.selection.cases import CaseRoles
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset

FOLDER = "selection"
# Fewer steps teach a network nothing.
FEWEST_STEPS = 30
# Checkpoints and plots, as in `planning.time_budget`.
_OVERHEAD = 1.07


@dataclass(frozen=True)
class Length:
    """epochs of `cases` training cases; `cases` are all, or the first ones if the time is too short for all."""

    epochs: int
    cases: int


def steps_in(seconds: float, step_seconds: float) -> int:
    """Optimiser steps that fit."""
    return int(seconds / (_OVERHEAD * step_seconds))


def too_slow(step_seconds: float, seconds: float) -> str:
    """Why a candidate cannot finish a training of so many seconds, "" if it can."""
    if steps_in(seconds, step_seconds) >= FEWEST_STEPS:
        return ""
    needed = FEWEST_STEPS * step_seconds * _OVERHEAD
    return f"{FEWEST_STEPS} steps take {needed:.0f} s, a training of the first rung has {seconds:.0f} s"


def length(steps: int, batch: int, cases: int) -> Length:
    """Whole epochs of at most so many steps; where even one is too long, a shorter epoch of fewer cases."""
    per_epoch = math.ceil(cases / batch)
    if steps < per_epoch:
        return Length(1, max(1, steps) * batch)
    return Length(steps // per_epoch, cases)


def trial_plan(planned: PlannedCandidate, epochs: int, seed: int, reason: str) -> Plan:
    """The candidate's plan with a complete schedule of so many epochs. The last weights count, so no case chooses the epoch."""
    model = planned.candidate.model
    warmup = min(registry.spec(model).warmup_epochs, max_warmup(epochs))
    training = replace(
        planned.plan.training, epochs=epochs, validate_every=epochs, selection="last", patience=0, search_epochs=0, seed=seed,
        learning_rates=(planned.candidate.learning_rate,),
    )  # fmt: skip
    plan = replace(planned.plan, training=training, time_budget=0.0)
    plan = replace(plan, models={model: replace(planned.model_plan, warmup_epochs=warmup, timing=None)})
    plan = with_decision(plan, Decision("training.epochs", str(epochs), reason))
    return with_decision(plan, Decision("training.selection", "last", "no case of a selection chooses the epoch"))


def prepare_trial(
    dataset: Dataset, planned: PlannedCandidate, level: int, steps: int, *, roles: CaseRoles, splits: Splits, seed: int
) -> Job:
    """Write the plan and the cases of a candidate's training of a level, unless it has begun. Returns its job."""
    candidate = planned.candidate
    trial = f"{FOLDER}/{candidate.name}/level_{level}"
    folder = dataset.trial(trial)
    if not _is_prepared(folder, planned.plan):
        size = length(steps, planned.model_plan.batch_size, len(roles.training))
        rung = Fold(_spread(roles.training, size.cases), roles.deciding)
        reason = f"as many as fit the time of level {level} of autoseg_select"
        cases = replace(splits, folds=(rung,), reason=roles.reason, given="", official="", id="")
        write_artefact(folder / "splits.json", cases)
        write_artefact(folder / "plan.json", trial_plan(planned, size.epochs, seed, reason))
    return Job(dataset.name, candidate.model, 0, trial)


def prepare_folds(
    dataset: Dataset, planned: PlannedCandidate, steps: int, splits: Splits, seed: int
) -> tuple[str, list[Job]]:
    """Write the plan of a candidate that is trained on the dataset's own folds. Returns its folder's name and its jobs."""
    smallest = min(len(fold.train) for fold in splits.folds)
    size = length(steps, planned.model_plan.batch_size, smallest)
    short = size.cases < smallest
    run = f"{planned.candidate.name}-{size.epochs}ep" + (f"-{size.cases}cases" if short else "")
    folder = dataset.model(run)
    if not _is_prepared(folder, planned.plan):
        folds = tuple(replace(fold, train=_spread(fold.train, size.cases)) if short else fold for fold in splits.folds)
        folds = tuple(replace(fold, inner=tuple(case for case in fold.inner if case in fold.train)) for fold in folds)
        write_artefact(folder / "splits.json", replace(splits, folds=folds))
        reason = "as many as fit the time of a fold of autoseg_select"
        write_artefact(folder / "plan.json", trial_plan(planned, size.epochs, seed, reason))
    return run, [Job(dataset.name, planned.candidate.model, fold, run) for fold in range(len(splits.folds))]


def _is_prepared(folder: Path, plan: Plan) -> bool:
    if not (folder / "plan.json").is_file() or not (folder / "splits.json").is_file():
        return False
    return read_artefact(folder / "plan.json", Plan).content_hash == plan.content_hash


def _spread(cases: tuple[str, ...], number: int) -> tuple[str, ...]:
    """So many of the cases, evenly spread over the list."""
    if number >= len(cases):
        return cases
    return tuple(cases[index * len(cases) // number] for index in range(number))


def read_result(dataset: Dataset, job: Job) -> tuple[RunRecord, Scores]:
    """The record and the scores of a job that is done."""
    folder = dataset.trial(job.trial) / f"fold_{job.fold}"
    return read_artefact(folder / "run.json", RunRecord), read_artefact(folder / "validation" / "scores.json", Scores)


def image_seconds(record: RunRecord) -> float:
    """Measured seconds of the training of one image."""
    return 1 / record.images_per_second if record.images_per_second else 0.0


def describe(candidate: SelectionCandidate) -> str:
    """A candidate in words."""
    geometry = "patches" if candidate.geometry == "patch" else "whole images"
    linear = " and linear decoder" if is_linear(candidate.settings) else ""
    frozen = f", frozen encoder{linear}" if candidate.frozen else ""
    size = f"{candidate.input_size[0]} x {candidate.input_size[1]}"
    return f"{candidate.model} {candidate.variant}, {geometry} of {size}, learning rate {candidate.learning_rate:g}{frozen}"
