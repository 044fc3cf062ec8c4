"""Training schedule, equal for all models of a plan: batch, epochs, loss, sampling, learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoseg.models.base import ModelSpec
from autoseg.planning.augmentation import decide_augmentation
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.hardware import show_memory
from autoseg.schema.plan import Decision, Protocol, Selection, Training

TARGET_BATCH = 8
# On GPUs with this much memory, if an epoch still has at least _LARGE_BATCH steps.
_LARGE_BATCH, _LARGE_MEMORY = 16, 20 << 30
# Optimiser steps of a protocol. Quick: minutes on two cores. Auto: until fine-tuning of a 2D network converges.
_QUICK_STEPS = 200
_AUTO_STEPS = {"cpu": 4_000, "cuda": 15_000, "mps": 8_000}
# Auto trains at least this many epochs, with at most four times the steps.
_AUTO_EPOCHS = 50
_STUDY_EPOCHS, _STUDY_PATIENCE = 150, 20
# Approximate number of validations, and the fraction of the training time they may take.
_VALIDATIONS = {"quick": 8, "auto": 50}
_VALIDATION_SHARE = 0.15
# Fraction of the epochs for each candidate learning rate. Quick has no search.
_SEARCH_SHARE = 0.05
# A forward pass costs about a third of a training step.
_FORWARD_COST = 1 / 3
# Classes in fewer than a third of the cases are sampled more often.
_RARE = 1 / 3
_SPARSE = 0.02
# Which weights a training gives. The study chose by the cases it scored.
_SELECTION: dict[str, tuple[Selection, str]] = {
    "benchmark": ("held_out", "the study's: the best epoch on the scored cases, so scores are optimistic"),
    "auto": ("last", "the scored cases choose nothing"),
    "quick": ("last", "the scored cases choose nothing"),
}
_RATES: dict[str, tuple[float, ...]] = {
    "benchmark": (1e-4, 5e-5, 1e-5),
    "auto": (3e-4, 1e-4, 5e-5),
    "quick": (1e-3, 5e-4, 2e-4),
}
# With at most so many steps, `auto` has the rates of `quick`: the others would end before they have learnt anything.
FEW_STEPS = 1000


@dataclass(frozen=True)
class Budget:
    """batch: images for each optimiser step. steps: optimiser steps for each epoch."""

    batch: int
    steps: int


def decide_budget(stats: DatasetStats, protocol: Protocol, device: str, memory: int) -> tuple[Budget, Decision]:
    """The same batch size for every model, for a fair comparison. Gradient accumulation depends on the memory of each model."""
    batch, cases = TARGET_BATCH, stats.training_cases
    reason = "the same for every model; larger models accumulate gradients over equal parts"
    if protocol == "benchmark":
        reason = "the study's protocol; larger models accumulate gradients over equal parts"
    elif protocol == "auto" and device == "cuda" and memory >= _LARGE_MEMORY and cases >= _LARGE_BATCH**2:
        batch = _LARGE_BATCH
        memory_reason = (
            f"{show_memory(memory)} of GPU memory allow a larger batch, and {cases} training images give enough steps"
        )
        reason = f"{memory_reason}; {reason}"
    while protocol != "benchmark" and batch > 2 and batch > cases:
        batch //= 2
        reason = f"no more than the {cases} training images; the same for every model"
    return Budget(batch, math.ceil(cases / batch)), Decision("batch", str(batch), reason, stats.cite("cases"))


@dataclass(frozen=True)
class Schedule:
    """Steps and trials for a time limit. reason: the limit. trials: whether learning rates are tried."""

    steps: int
    trials: bool
    reason: str


def decide_training(
    stats: DatasetStats,
    spatial_plan: SpatialPlan,
    protocol: Protocol,
    device: str,
    budget: Budget,
    folds: int,
    seed: int,
    *,
    schedule: Schedule | None = None,
) -> tuple[Training, list[Decision]]:
    """The training settings shared by all models, with reasons. schedule: instead of the protocol's steps and trials."""
    epochs, epochs_decisions = _epochs(stats, protocol, device, budget, schedule)
    loss = _loss(stats, protocol)
    fraction = _foreground_share(stats, spatial_plan)
    validation, augmentation = _validation(stats, spatial_plan, protocol, epochs), decide_augmentation(stats, spatial_plan)
    few_steps = protocol == "auto" and epochs * budget.steps <= FEW_STEPS
    rates, cited_fields = _RATES["quick" if few_steps else protocol], _class_fields(stats, "presence", "pixel_share")
    search_epochs = _search(protocol, epochs, len(rates), schedule)
    selection, selection_reason = _SELECTION[protocol]
    patience = _STUDY_PATIENCE if protocol == "benchmark" else 0
    training = Training(
        epochs=epochs,
        loss=loss[0],
        learning_rates=rates,
        foreground_share=fraction[0],
        patience=patience,
        validate_every=validation[0],
        search_epochs=search_epochs[0],
        selection=selection,
        folds=folds,
        seed=seed,
        augmentation=augmentation[0],
    )
    benchmark_reason = "the study's protocol" if protocol == "benchmark" else ""
    decisions = [
        *epochs_decisions,
        Decision("training.loss", loss[0], loss[1], stats.cite(*_class_fields(stats, "pixel_share"))),
        Decision("training.optimizer", "adamw", benchmark_reason or "works for all architectures"),
        Decision("training.schedule", "rex", benchmark_reason or "the rate stays high for long, which suits short trainings"),
        Decision("training.learning_rates", ", ".join(f"{rate:g}" for rate in rates), _rates_reason(protocol)),
        Decision("training.search_epochs", str(search_epochs[0]), search_epochs[1]),
        Decision("training.selection", selection, selection_reason),
        Decision("training.patience", str(patience), _patience_reason(protocol)),
        Decision("training.foreground_share", f"{fraction[0]:g}", fraction[1], stats.cite(*cited_fields)),
        Decision("training.validate_every", str(validation[0]), validation[1], stats.cite("cases")),
        *augmentation[1],
    ]
    return training, decisions


def decide_learning_rate(
    protocol: Protocol, model: ModelSpec, rates: tuple[float, ...], pretrained: bool
) -> tuple[float, Decision]:
    """The learning rate of a model, unless a search selects another candidate. pretrained: it starts from published weights."""
    subject = f"models.{model.name}.learning_rate"
    if protocol == "benchmark":
        return rates[0], Decision(subject, f"{rates[0]:g}", "first of the study's candidates, until the search selects one")
    needs_warmup = model.warmup_epochs > 0
    if rates == _RATES["quick"]:
        rate = rates[2] if needs_warmup else rates[1]
        reason = "an attention network that needs warm-up" if needs_warmup else "a few hundred steps need a high rate"
    else:
        rate = rates[1] if pretrained or needs_warmup else rates[0]
        reason = "pretrained weights need small steps" if pretrained else "trained from random weights"
        reason = "an attention network that needs warm-up" if needs_warmup else reason
    return rate, Decision(subject, f"{rate:g}", reason)


def _epochs(
    stats: DatasetStats, protocol: Protocol, device: str, budget: Budget, schedule: Schedule | None
) -> tuple[int, list[Decision]]:
    steps_text = f"{stats.training_cases} training images are {budget.steps} steps of {budget.batch}"
    if schedule is not None:
        epochs = max(1, schedule.steps // budget.steps)
        reason = f"{schedule.reason}; {steps_text}: {epochs * budget.steps} steps for every model"
    elif protocol == "benchmark":
        epochs, reason = _STUDY_EPOCHS, "the study's protocol: up to 150 with early stopping"
    elif protocol == "quick":
        epochs = max(1, round(_QUICK_STEPS / budget.steps))
        reason = f"{steps_text}: about {epochs * budget.steps} steps for every model, minutes on two cores"
    else:
        steps = _AUTO_STEPS[device]
        min_epochs = min(_AUTO_EPOCHS, math.ceil(4 * steps / budget.steps))
        epochs = max(math.ceil(steps / budget.steps), min_epochs)
        reason = f"{steps_text}: {epochs * budget.steps} steps for every model"
    return epochs, [Decision("training.epochs", str(epochs), reason, stats.cite("cases"))]


def _loss(stats: DatasetStats, protocol: Protocol) -> tuple[str, str]:
    if stats.regions:
        reason = f"regions overlap, so each of the {stats.outputs} outputs has its own sigmoid"
        return ("bce", reason) if protocol == "benchmark" else ("dice_bce", f"{reason}; Dice is the final metric")
    if protocol == "benchmark":
        is_single = len(stats.classes) == 1
        return (
            ("bce", "the study's loss for one foreground class")
            if is_single
            else ("ce", "the study's loss for several classes")
        )
    return "dice_ce", (
        f"Dice with cross entropy: foreground is {stats.foreground_share:.2%} of the pixels, which cross entropy alone would "
        f"neglect"
    )


def _foreground_share(stats: DatasetStats, spatial_plan: SpatialPlan) -> tuple[float, str]:
    if spatial_plan.kind == "patch":
        fraction = stats.foreground_share
        if fraction < _SPARSE:
            return 0.5, f"foreground is only {fraction:.2%} of the pixels: half of the patches are centred on it"
        return 0.33, f"foreground is {fraction:.1%} of the pixels: a third of the patches are centred on it, as in nnU-Net"
    rare_classes = [class_statistics for class_statistics in stats.classes if 0 < class_statistics.presence < _RARE]
    if rare_classes:
        names = ", ".join(f"{class_statistics.name} in {class_statistics.presence:.0%}" for class_statistics in rare_classes)
        return 0.33, f"rare classes ({names} of the cases): a third of the samples are cases with one of them"
    return 0.0, "every class is in a third of the cases or more, and every image is used completely"


def _validation(stats: DatasetStats, spatial_plan: SpatialPlan, protocol: Protocol, epochs: int) -> tuple[int, str]:
    if protocol == "benchmark":
        return 1, "early stopping needs every epoch"
    cost = validation_cost(stats, spatial_plan)
    interval = max(epochs // _VALIDATIONS[protocol], math.ceil(cost / _VALIDATION_SHARE), 1)
    interval = min(interval, max(1, epochs // 3))
    return (
        interval,
        f"a validation costs about as much as {cost:.0%} of an epoch; {math.ceil(epochs / interval)} of them in all",
    )


def validation_cost(stats: DatasetStats, spatial_plan: SpatialPlan) -> float:
    """Time of a validation relative to an epoch."""
    tiles = 1
    if spatial_plan.kind == "patch":
        sides = zip(spatial_plan.native, spatial_plan.input_size(spatial_plan.side), strict=True)
        tiles = math.prod(max(1, math.ceil(2 * length / side) - 1) for length, side in sides)
    return stats.validation_cases * tiles * _FORWARD_COST / stats.training_cases


def _search(protocol: Protocol, epochs: int, candidates: int, schedule: Schedule | None) -> tuple[int, str]:
    if schedule is not None and not schedule.trials:
        return 0, f"no search: {schedule.reason}, and trials of so few steps would say little; each model has a known rate"
    if protocol == "quick":
        return 0, "no search: there is no time, and each model has a rate that is known to work"
    search_epochs = max(1, round(_SEARCH_SHARE * epochs))
    fraction = candidates * search_epochs / epochs
    judges = "its scored cases (the study's way)" if protocol == "benchmark" else "inner cases of its training side"
    return search_epochs, (
        f"each of {candidates} rates is trained that long on fold 0, and the best by Dice on {judges} is used for all folds; "
        f"the search takes {fraction:.0%} of a fold's budget"
    )


def _class_fields(stats: DatasetStats, *fields: str) -> list[tuple[str, ...]]:
    return [("classes", class_statistics.name, field) for class_statistics in stats.classes for field in fields]


def _rates_reason(protocol: Protocol) -> str:
    if protocol == "benchmark":
        return "the study's candidates"
    return "candidates around the planned rate of each model"


def _patience_reason(protocol: Protocol) -> str:
    if protocol == "benchmark":
        return "one early-stopping rule for all; the study does not give its length"
    return "a fixed budget, so that models can be compared"
