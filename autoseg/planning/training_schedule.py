"""Training schedule, equal for all models of a plan: batch, epochs, loss, sampling, learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autoseg.models.base import ModelSpec
from autoseg.planning import study_protocol as study
from autoseg.planning.augmentation import Kind, decide_augmentation
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.hardware import show_memory
from autoseg.schema.plan import MONITOR_NAMES, Decision, Protocol, Training

TARGET_BATCH = 8
# Where a time limit leaves fewer than SHORT_STEPS of the former: more steps are worth more than better gradients.
SHORT_BATCH, SHORT_STEPS = 4, 100
# On GPUs with this much memory, if an epoch still has at least _LARGE_BATCH steps.
_LARGE_BATCH, _LARGE_MEMORY = 16, 20 << 30
# Optimiser steps of a protocol. Quick: minutes on two cores. Auto: until fine-tuning of a 2D network converges.
_QUICK_STEPS = 200
_AUTO_STEPS = {"cpu": 4_000, "cuda": 15_000, "mps": 8_000}
# Auto trains at least this many epochs, with at most four times the steps.
_AUTO_EPOCHS = 50
# Approximate number of validations, and the fraction of the training time they may take.
_VALIDATIONS = {"quick": 8, "auto": 50}
_VALIDATION_SHARE = 0.15
# Fraction of the epochs for each candidate learning rate. Quick has no search.
_SEARCH_SHARE = 0.05
# A forward pass costs about a third of a training step.
FORWARD_COST = 1 / 3
# Classes in fewer than a third of the cases are sampled more often.
_RARE = 1 / 3
_SPARSE = 0.02
# Validations of a trial of a learning rate, where the plan's own do not choose its epoch.
_TRIAL_VALIDATIONS = 4
_RATES: dict[str, tuple[float, ...]] = {
    "benchmark": study.RATES,
    "auto": (1e-3, 3e-4, 1e-4),
    "quick": (1e-3, 5e-4, 2e-4),
}
# With at most so many steps, `auto` has the rates of `quick`: the others would end before they have learnt anything.
FEW_STEPS = 1000

_TTA_REASONS = {
    True: "predictions are averaged over the mirrored views of training: a little better, two or four passes for one",
    False: "training mirrors no axis",
}


@dataclass(frozen=True)
class Budget:
    """batch: images for each optimiser step. steps: optimiser steps for each epoch."""

    batch: int
    steps: int


def decide_budget(
    stats: DatasetStats, protocol: Protocol, device: str, memory: int, *, short: bool = False
) -> tuple[Budget, Decision]:
    """The same batch size for every model, for a fair comparison. Gradient accumulation depends on the memory of each model.
    short: the time is short, see `SHORT_STEPS`."""
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
    if short and batch > SHORT_BATCH:
        reason = f"of {batch} images not even {SHORT_STEPS} steps fit the time; the same for every model"
        batch = SHORT_BATCH
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
    augmentation: Kind = "planned",
    frozen: bool = False,
) -> tuple[Training, list[Decision]]:
    """The training settings shared by all models, with reasons. schedule: instead of the protocol's steps and trials.
    augmentation: see `decide_augmentation`. frozen: the time is so short that the encoders of some models are frozen."""
    epochs, epochs_decisions = _epochs(stats, protocol, device, budget, schedule)
    loss = _loss(stats, protocol)
    few_steps = protocol == "auto" and epochs * budget.steps <= FEW_STEPS
    rates = _RATES["quick" if few_steps else protocol]
    loss_source = stats.cite(*_class_fields(stats, "pixel_share"))
    changes, augmentation_decisions = decide_augmentation(stats, spatial_plan, augmentation)
    training = Training(
        epochs=epochs, loss=loss[0], learning_rates=rates, selection="last", folds=folds, seed=seed, augmentation=changes
    )
    decisions = [*epochs_decisions, Decision("training.loss", loss[0], loss[1], loss_source)]
    if protocol == "benchmark":
        training, of_protocol = _as_in_the_study(training, spatial_plan, stats)
        if augmentation == "planned":
            augmentation_decisions = [study.decision("augmentation", "planned"), *augmentation_decisions]
    else:
        training, of_protocol = _by_rules(training, spatial_plan, stats, protocol, schedule, frozen)
    return training, [*decisions, *of_protocol, *augmentation_decisions]


def _by_rules(
    training: Training, spatial_plan: SpatialPlan, stats: DatasetStats, protocol: Protocol, schedule: Schedule | None,
    frozen: bool,
) -> tuple[Training, list[Decision]]:
    """The settings of `auto` and `quick`."""
    fraction = _foreground_share(stats, spatial_plan)
    validation = _validation(stats, spatial_plan, protocol, training.epochs, frozen)
    search_epochs = _search(protocol, training.epochs, len(training.learning_rates), schedule)
    cited = _class_fields(stats, "presence", "pixel_share")
    rates = ", ".join(f"{rate:g}" for rate in training.learning_rates)
    training = replace(
        training, foreground_share=fraction[0], validate_every=validation[0], search_epochs=search_epochs[0],
        tta=bool(training.augmentation.mirror),
    )  # fmt: skip
    return training, [
        Decision("training.optimizer", "adamw", "works for all architectures"),
        Decision("training.schedule", "rex", "the rate stays high for long, which suits short trainings"),
        Decision("training.learning_rates", rates, "candidates around the planned rate of each model"),
        Decision("training.search_epochs", str(search_epochs[0]), search_epochs[1]),
        Decision("training.monitor", training.monitor, "every class counts the same, however rare it is"),
        Decision("training.selection", training.selection, "the scored cases choose nothing"),
        Decision("training.patience", "0", "a fixed budget, so that models can be compared"),
        Decision("training.foreground_share", f"{fraction[0]:g}", fraction[1], stats.cite(*cited)),
        Decision("training.validate_every", str(validation[0]), validation[1], stats.cite("cases")),
        Decision("training.tta", str(training.tta).lower(), _TTA_REASONS[training.tta]),
    ]


def _as_in_the_study(training: Training, spatial_plan: SpatialPlan, stats: DatasetStats) -> tuple[Training, list[Decision]]:
    """The settings of `benchmark`, see `study_protocol`."""
    # The study has no patches; where the user sets them, they are drawn by the rule.
    patches = spatial_plan.kind == "patch"
    fraction = _foreground_share(stats, spatial_plan) if patches else (0.0, "")
    training = replace(
        training, foreground_share=fraction[0], gradient_clip=0.0, patience=study.PATIENCE, min_delta=study.MIN_DELTA,
        monitor="micro.iou", validate_every=1, search_epochs=study.SEARCH_EPOCHS, selection="held_out", auxiliary_losses=False,
    )  # fmt: skip
    share = len(training.learning_rates) * training.search_epochs / training.epochs
    named = {
        "training.optimizer": "adamw",
        "training.schedule": "rex",
        "training.learning_rates": ", ".join(f"{rate:g}" for rate in training.learning_rates),
        "training.search_epochs": str(training.search_epochs),
        "training.monitor": training.monitor,
        "training.selection": training.selection,
        "training.patience": str(training.patience),
        "training.min_delta": f"{training.min_delta:g}",
        "training.gradient_clip": "0",
        "training.auxiliary_losses": "false",
        "training.foreground_share": "0",
        "training.validate_every": "1",
        "training.scored_size": training.scored_size,
        "training.tta": "false",
        "warmup_epochs": "0",
    }
    decisions = [
        study.decision(subject, value, monitor=MONITOR_NAMES[training.monitor], fraction=share)
        for subject, value in named.items()
        if not (patches and subject == "training.foreground_share")
    ]
    return training, decisions + (
        [Decision("training.foreground_share", f"{fraction[0]:g}", fraction[1])] if patches else []
    )


def decide_learning_rate(
    protocol: Protocol, model: ModelSpec, rates: tuple[float, ...], pretrained: bool
) -> tuple[float, Decision]:
    """The learning rate of a model, unless a search selects another candidate. pretrained: it starts from published weights."""
    subject = f"models.{model.name}.learning_rate"
    if protocol == "benchmark":
        return rates[0], Decision(subject, f"{rates[0]:g}", "first of the study's candidates, until the search selects one")
    if model.warmup_epochs > 0:
        rate, reason = rates[2], "an attention network that needs warm-up"
    elif rates == _RATES["quick"]:
        rate, reason = rates[0 if model.high_rate else 1], "a few hundred steps need a high rate"
    else:
        place = (1 if pretrained else 0) + (0 if model.high_rate else 1)
        rate, reason = rates[place], "pretrained weights need small steps" if pretrained else "trained from random weights"
    if model.high_rate:
        reason += "; higher than usual, as measured for this network"
    return rate, Decision(subject, f"{rate:g}", reason)


def _epochs(
    stats: DatasetStats, protocol: Protocol, device: str, budget: Budget, schedule: Schedule | None
) -> tuple[int, list[Decision]]:
    steps_text = f"{stats.training_cases} training images are {budget.steps} steps of {budget.batch}"
    if schedule is not None:
        epochs = max(1, schedule.steps // budget.steps)
        reason = f"{schedule.reason}; {steps_text}: {epochs * budget.steps} steps for every model"
    elif protocol == "benchmark":
        epochs, reason = study.EPOCHS, study.REASONS["training.epochs"]
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


def _validation(
    stats: DatasetStats, spatial_plan: SpatialPlan, protocol: Protocol, epochs: int, frozen: bool
) -> tuple[int, str]:
    if frozen:
        interval = max(1, epochs // 3)
        return interval, "a validation computes the frozen encoder again, which costs more than many steps of the decoder"
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
    return stats.validation_cases * tiles * FORWARD_COST / stats.training_cases


def trial_interval(training: Training) -> int:
    """Epochs between the validations of a trial. Where validations choose the epoch, they do in a trial too."""
    if training.selection in ("held_out", "next_fold"):
        return training.validate_every
    return max(1, training.search_epochs // _TRIAL_VALIDATIONS)


def trial_validations(training: Training) -> int:
    """Number of validations of a trial, nearly."""
    if training.selection in ("held_out", "next_fold"):
        return math.ceil(training.search_epochs / training.validate_every)
    return min(_TRIAL_VALIDATIONS, training.search_epochs)


def _search(protocol: Protocol, epochs: int, candidates: int, schedule: Schedule | None) -> tuple[int, str]:
    if schedule is not None and not schedule.trials:
        return 0, f"no search: {schedule.reason}, and trials of so few steps would say little; each model has a known rate"
    if protocol == "quick":
        return 0, "no search: there is no time, and each model has a rate that is known to work"
    search_epochs = max(1, round(_SEARCH_SHARE * epochs))
    return search_epochs, (
        f"each of {candidates} rates is trained that long on fold 0, and the best by Dice on inner cases of its training side "
        f"is used for all folds; the search takes {candidates * search_epochs / epochs:.0%} of a fold's budget"
    )


def _class_fields(stats: DatasetStats, *fields: str) -> list[tuple[str, ...]]:
    return [("classes", class_statistics.name, field) for class_statistics in stats.classes for field in fields]
