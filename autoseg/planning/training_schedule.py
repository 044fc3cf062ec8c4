"""The budget and the rules of learning, equal for all models of a plan: epochs, loss, sampling, learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoseg.models.base import ModelSpec
from autoseg.planning.augmentation import decide_augmentation
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.hardware import show_memory
from autoseg.schema.plan import Decision, Protocol, Training

TARGET_BATCH = 8
# On GPUs with this much memory, if an epoch still has at least as many steps as a batch has images.
_LARGE_BATCH, _LARGE_MEMORY = 16, 20 << 30
# Optimiser steps a protocol aims at. Quick: minutes on two cores. Auto: what fine-tuning a 2D network takes to level out.
_QUICK_STEPS = 200
_AUTO_STEPS = {"cpu": 4_000, "cuda": 15_000, "mps": 8_000}
# Auto shows large sets at least this many times, for at most four times the steps.
_AUTO_EPOCHS = 50
_STUDY_EPOCHS, _STUDY_PATIENCE = 150, 20
# Validations a training has about room for, and the share of its time they may take.
_VALIDATIONS = {"quick": 8, "auto": 50}
_VALIDATION_SHARE = 0.15
# Share of a training's epochs each candidate learning rate is tried for. Quick has no time to try.
_SEARCH_SHARE = 0.05
# A forward pass costs about a third of a training step.
_FORWARD = 1 / 3
# Classes held by fewer than a third of the cases are drawn more often.
_RARE = 1 / 3
_SPARSE = 0.02
_RATES: dict[str, tuple[float, ...]] = {
    "benchmark": (1e-4, 5e-5, 1e-5), "auto": (3e-4, 1e-4, 5e-5), "quick": (1e-3, 5e-4, 2e-4),
}


@dataclass(frozen=True)
class Budget:
    """batch: images an optimiser step sees. steps: optimiser steps an epoch has."""

    batch: int
    steps: int


def decide_budget(stats: DatasetStats, protocol: Protocol, device: str, memory: int) -> tuple[Budget, Decision]:
    """The same batch for every model, so that they can be compared; parts of it follow each model's memory."""
    batch, cases = TARGET_BATCH, stats.training_cases
    because = "the same for every model; what does not fit at once goes through in equal parts"
    if protocol == "benchmark":
        because = "the study's protocol; what does not fit at once goes through in equal parts"
    elif protocol == "auto" and device == "cuda" and memory >= _LARGE_MEMORY and cases >= _LARGE_BATCH**2:
        batch = _LARGE_BATCH
        room = f"{show_memory(memory)} of a GPU hold a larger batch, and {cases} training images leave steps enough"
        because = f"{room}; {because}"
    while protocol != "benchmark" and batch > 2 and batch > cases:
        batch //= 2
        because = f"no more than the {cases} training images; the same for every model"
    return Budget(batch, math.ceil(cases / batch)), Decision("batch", str(batch), because, stats.cite("cases"))


def decide_training(
    stats: DatasetStats, frame: SpatialPlan, protocol: Protocol, device: str, budget: Budget, folds: int, seed: int
) -> tuple[Training, list[Decision]]:
    """Everything models of a plan share, with reasons."""
    epochs, decided = _epochs(stats, protocol, device, budget)
    loss = _loss(stats, protocol)
    share = _foreground_share(stats, frame)
    validate, augmentation = _validation(stats, frame, protocol, epochs), decide_augmentation(stats, frame)
    rates, drawn = _RATES[protocol], _shares(stats, "presence", "pixel_share")
    search = _search(protocol, epochs, len(rates))
    patience = _STUDY_PATIENCE if protocol == "benchmark" else 0
    training = Training(
        epochs=epochs,
        loss=loss[0],
        learning_rates=rates,
        foreground_share=share[0],
        patience=patience,
        validate_every=validate[0],
        search_epochs=search[0],
        folds=folds,
        seed=seed,
        augmentation=augmentation[0],
    )
    study = "the study's protocol" if protocol == "benchmark" else ""
    decisions = [
        *decided,
        Decision("training.loss", loss[0], loss[1], stats.cite(*_shares(stats, "pixel_share"))),
        Decision("training.optimizer", "adamw", study or "works for every architecture here"),
        Decision("training.schedule", "rex", study or "the rate stays high for long, good for short budgets"),
        Decision("training.learning_rates", ", ".join(f"{rate:g}" for rate in rates), _why_rates(protocol)),
        Decision("training.search_epochs", str(search[0]), search[1]),
        Decision("training.patience", str(patience), _why_patience(protocol)),
        Decision("training.foreground_share", f"{share[0]:g}", share[1], stats.cite(*drawn)),
        Decision("training.validate_every", str(validate[0]), validate[1], stats.cite("cases")),
        *augmentation[1],
    ]
    return training, decisions


def decide_learning_rate(protocol: Protocol, model: ModelSpec, rates: tuple[float, ...]) -> tuple[float, Decision]:
    """The rate a model has unless a search chooses another candidate."""
    subject = f"models.{model.name}.learning_rate"
    if protocol == "benchmark":
        return rates[0], Decision(subject, f"{rates[0]:g}", "first of the study's candidates, until the search has chosen")
    gentle = model.warmup_epochs > 0
    if protocol == "quick":
        rate = rates[2] if gentle else rates[1]
        because = "an attention network that wants warm-up" if gentle else "a few hundred steps ask for a high rate"
    else:
        pretrained = bool(model.weights)
        rate = rates[1] if pretrained or gentle else rates[0]
        because = "pretrained weights want gentle steps" if pretrained else "trained from random weights"
        because = "an attention network that wants warm-up" if gentle else because
    return rate, Decision(subject, f"{rate:g}", because)


def _epochs(stats: DatasetStats, protocol: Protocol, device: str, budget: Budget) -> tuple[int, list[Decision]]:
    what = f"{stats.training_cases} training images are {budget.steps} steps of {budget.batch}"
    if protocol == "benchmark":
        epochs, because = _STUDY_EPOCHS, "the study's protocol: up to 150 with early stopping"
    elif protocol == "quick":
        epochs = max(1, round(_QUICK_STEPS / budget.steps))
        because = f"{what}: about {epochs * budget.steps} steps for every model, minutes on two cores"
    else:
        steps = _AUTO_STEPS[device]
        least = min(_AUTO_EPOCHS, math.ceil(4 * steps / budget.steps))
        epochs = max(math.ceil(steps / budget.steps), least)
        because = f"{what}: {epochs * budget.steps} steps for every model"
    return epochs, [Decision("training.epochs", str(epochs), because, stats.cite("cases"))]


def _loss(stats: DatasetStats, protocol: Protocol) -> tuple[str, str]:
    if stats.regions:
        because = f"regions overlap, so each of the {stats.outputs} outputs has its own sigmoid"
        return ("bce", because) if protocol == "benchmark" else ("dice_bce", f"{because}; Dice is what is asked for in the end")
    if protocol == "benchmark":
        one = len(stats.classes) == 1
        return ("bce", "the study's loss for one foreground class") if one else ("ce", "the study's loss for several classes")
    return "dice_ce", (
        f"Dice with cross entropy: foreground is {stats.foreground_share:.2%} of the pixels, which cross entropy alone would "
        f"neglect"
    )


def _foreground_share(stats: DatasetStats, frame: SpatialPlan) -> tuple[float, str]:
    if frame.kind == "patch":
        share = stats.foreground_share
        if share < _SPARSE:
            return 0.5, f"foreground is only {share:.2%} of the pixels: half of the patches are centred on it"
        return 0.33, f"foreground is {share:.1%} of the pixels: a third of the patches are centred on it, as in nnU-Net"
    rare = [found for found in stats.classes if 0 < found.presence < _RARE]
    if rare:
        named = ", ".join(f"{found.name} in {found.presence:.0%}" for found in rare)
        return 0.33, f"rare classes ({named} of the cases): a third of the draws go to cases that hold one"
    return 0.0, "every class is in a third of the cases or more, and whole images hold all there is"


def _validation(stats: DatasetStats, frame: SpatialPlan, protocol: Protocol, epochs: int) -> tuple[int, str]:
    if protocol == "benchmark":
        return 1, "early stopping looks after every epoch"
    tiles = 1
    if frame.kind == "patch":
        sides = zip(frame.native, frame.input_size(frame.side), strict=True)
        tiles = math.prod(max(1, math.ceil(2 * length / side) - 1) for length, side in sides)
    # Validation images against training images, in units of training steps' images.
    cost = (stats.cases - stats.training_cases) * tiles * _FORWARD / stats.training_cases
    every = max(epochs // _VALIDATIONS[protocol], math.ceil(cost / _VALIDATION_SHARE), 1)
    every = min(every, max(1, epochs // 3))
    return every, f"a validation costs about as much as {cost:.0%} of an epoch; {math.ceil(epochs / every)} of them in all"


def _search(protocol: Protocol, epochs: int, candidates: int) -> tuple[int, str]:
    if protocol == "quick":
        return 0, "no search: minutes are all there is, and each model has a rate that is known to do"
    tried = max(1, round(_SEARCH_SHARE * epochs))
    share = candidates * tried / epochs
    return tried, (
        f"each of {candidates} rates is tried so long on fold 0, the best by Dice serves all folds; the trials take "
        f"{share:.0%} of a fold's budget"
    )


def _shares(stats: DatasetStats, *fields: str) -> list[tuple[str, ...]]:
    return [("classes", found.name, field) for found in stats.classes for field in fields]


def _why_rates(protocol: Protocol) -> str:
    if protocol == "benchmark":
        return "the study's candidates"
    return "candidates, around the rate each model is planned with"


def _why_patience(protocol: Protocol) -> str:
    if protocol == "benchmark":
        return "one early-stopping rule for all; the study does not say its length"
    return "a fixed budget, so that models can be compared"
