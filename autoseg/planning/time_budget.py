"""The time of a training: what is expected, and which variants, sizes, steps and trials fit a limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol as TypingProtocol

from autoseg.models import registry
from autoseg.planning.geometry import SpatialPlan
from autoseg.planning.sizing import ModelConfig, ModelRequest, Size, flops_of, smaller_variants
from autoseg.planning.training_schedule import Schedule, trial_validations
from autoseg.schema.plan import Decision, ModelPlan, Plan, Timing, Training
from autoseg.support.log import progress_bar

# A fine-tuning of 2D networks needs about this many steps; more only where there is time left.
_STEPS_PER_HOUR = 1000
_FEWEST_TARGET, _FEWEST = 200, 30
# Where models share a limit, one that cannot do half of the fewest takes no steps from the others.
_USEFUL = _FEWEST_TARGET // 2
# Learning rates are tried from this many steps on.
_STEPS_WITH_TRIALS = 2000
# Side of a square as large as the smaller input.
_SMALL_SIDE = 256
# Checkpoints and plots (see `training.trainer`), and seconds until the first step.
_OVERHEAD, _START = 1.07, 20.0
# What is more than the limit is told from this on.
_CLEARLY = 1.1


class StepTimer(TypingProtocol):
    """Measures optimiser steps on this machine."""

    machine: str

    def seconds(self, plan: Plan, model: ModelPlan) -> float:
        """Seconds of one step of the model as planned. Measured once for each configuration."""
        ...


@dataclass(frozen=True)
class TimeChoice:
    """What fits a time limit: steps and trials for all models, variant and size of each. slowest: the one that decides.
    steps: that each model alone has time for."""

    schedule: Schedule
    configs: Mapping[str, ModelConfig]
    slowest: str
    steps: Mapping[str, int]

    def shorter(self, factor: float) -> TimeChoice:
        """The same with this fraction of the steps."""
        steps = max(_FEWEST, int(self.schedule.steps * factor))
        return replace(self, schedule=replace(self.schedule, steps=steps))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the time depends on besides the steps. validation: relative to an epoch."""

    steps_per_epoch: int
    validation: float

    def of(self, plan: Plan, model: ModelPlan, timer: StepTimer) -> Cost:
        """That of a model. Validations compute its encoder, which a step with cached features does not."""
        if not model.cached_views:
            return self
        whole = timer.seconds(plan, replace(model, encoder_rate=1.0, cached_views=0))
        return replace(self, validation=self.validation * whole / timer.seconds(plan, model))


def expected_time(
    training: Training, seconds_per_step: float, cost: Cost, machine: str = "", trials: int | None = None
) -> Timing:
    """The time of one fold. trials: of the learning rate search (default: by the settings)."""
    epochs, steps = training.epochs, cost.steps_per_epoch
    if trials is None:
        trials = len(training.learning_rates) if training.search_epochs and len(training.learning_rates) > 1 else 0
    trial_steps = trials * training.search_epochs * steps
    validations = math.ceil(epochs / training.validate_every)
    validations += trials * trial_validations(training)
    # The held-out cases are predicted once more at the end, for their scores.
    validations += 2 ** len(training.augmentation.mirror) if training.tta else 1
    validation_seconds = cost.validation * steps * seconds_per_step
    seconds = (epochs * steps + trial_steps) * seconds_per_step + validations * validation_seconds
    return Timing(
        machine=machine,
        seconds_per_step=seconds_per_step,
        validation_seconds=validation_seconds,
        steps_per_epoch=steps,
        steps=epochs * steps,
        trial_steps=trial_steps,
        hours=(seconds * _OVERHEAD + _START * (1 + trials)) / 3600,
    )


def expected_again(plan: Plan, model: str) -> Timing | None:
    """The time of a model with the present settings of a plan, which may differ from those it was planned with."""
    timing = plan.models[model].timing
    if timing is None:
        return None
    per_epoch = timing.seconds_per_step * timing.steps_per_epoch
    cost = Cost(steps_per_epoch=timing.steps_per_epoch, validation=timing.validation_seconds / per_epoch if per_epoch else 0.0)
    return expected_time(plan.training, timing.seconds_per_step, cost, timing.machine, number_of_trials(plan, model))


def with_timings(plan: Plan, timer: StepTimer, cost: Cost) -> Plan:
    """The plan with the expected time of every model, and a decision that tells them."""
    models = {}
    for name, model in progress_bar(plan.models.items(), "measuring steps", len(plan.models)):
        seconds, of_model = timer.seconds(plan, model), cost.of(plan, model, timer)
        timing = expected_time(plan.training, seconds, of_model, timer.machine, number_of_trials(plan, name))
        models[name] = replace(model, timing=timing)
    decisions = [Decision(f"models.{name}.time", *_describe(model.timing)) for name, model in models.items() if model.timing]
    return replace(plan, models=models, decisions=(*plan.decisions, *decisions))


def over_limit(plan: Plan) -> list[str]:
    """Models whose fold is expected to take clearly longer than the plan's time limit."""
    if not plan.time_budget:
        return []
    return [
        name for name, model in plan.models.items() if model.timing and model.timing.hours > _CLEARLY * plan.time_budget
    ]


def show_time(hours: float) -> str:
    """Formatted time: "100 s", "25 min", "3.2 h"."""
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{hours:.1f} h"


def choose(
    plan: Plan, hours: float, timer: StepTimer, cost: Cost, spatial_plan: SpatialPlan, outputs: int
) -> TimeChoice | None:
    """Variants, sizes, steps and trials with which one fold takes at most `hours`. None if the plan does as it is.

    First the variant becomes smaller, then the input, until the steps a training needs fit; then all models get as many steps
    as the slowest has time for. Fields that the user has set stay.
    """
    search = _Search(plan, hours, timer, cost, spatial_plan, outputs)
    if all(search.fits(model, timer_seconds) for model, timer_seconds in search.as_planned()):
        return None
    target = min(max(_FEWEST_TARGET, round(_STEPS_PER_HOUR * hours)), plan.training.epochs * cost.steps_per_epoch)
    configs, seconds = {}, {}
    for name in progress_bar(plan.models, "fitting to the time", len(plan.models)):
        configs[name], seconds[name] = search.config(name, target)
    slowest = search.slowest(seconds, target)
    return TimeChoice(search.schedule(seconds, slowest), configs, slowest, search.steps(seconds))


class _Search:
    """The search for one time limit. Sizes and variants are compared by FLOPs, and what is chosen is measured."""

    def __init__(self, plan: Plan, hours: float, timer: StepTimer, cost: Cost, spatial_plan: SpatialPlan, outputs: int) -> None:
        self._plan, self._hours, self._timer, self._cost = plan, hours, timer, cost
        self._spatial_plan, self._outputs = spatial_plan, outputs

    def as_planned(self) -> list[tuple[str, float]]:
        """Each model with the estimated seconds of a step."""
        return [(name, self._estimate(name, model.variant, model.input_size)) for name, model in self._plan.models.items()]

    def fits(self, name: str, seconds: float) -> bool:
        cost, trials = self._cost_of(name), number_of_trials(self._plan, name)
        return expected_time(self._plan.training, seconds, cost, trials=trials).hours <= self._hours

    def config(self, name: str, target: int) -> tuple[ModelConfig, float]:
        """The largest configuration for which `target` steps fit, else the smallest, and its measured seconds."""
        model, correction = self._plan.models[name], 1.0
        candidates = self._candidates(name)
        for number, (variant, size) in enumerate(candidates):
            last = number == len(candidates) - 1
            if not last and self._steps(name, self._estimate(name, variant, size) * correction) < target:
                continue
            seconds = self._timer.seconds(self._plan, replace(model, variant=variant, input_size=size))
            enough = self._steps(name, seconds) >= target
            if enough or last:
                return ModelConfig(variant, size, self._why(seconds, target, number, enough)), seconds
            correction = seconds / self._estimate(name, variant, size)
        raise AssertionError("there is always a last candidate")

    def slowest(self, seconds: Mapping[str, float], target: int) -> str:
        """The slowest model of those that have time for a useful number of steps; else the fastest of all."""
        useful = min(target, _USEFUL)
        candidates = [name for name, one in seconds.items() if self._steps(name, one) >= useful]
        return max(candidates, key=lambda name: seconds[name], default=min(seconds, key=lambda name: seconds[name]))

    def schedule(self, seconds: Mapping[str, float], slowest: str) -> Schedule:
        """Steps and trials for all models: as many as the slowest has time for."""
        training, limit = self._plan.training, f"{show_time(self._hours)} for a fold"
        most = training.epochs * self._cost.steps_per_epoch
        if "training.epochs" in self._plan.overrides:
            return Schedule(most, training.search_epochs > 0, limit)
        if len(seconds) > 1:
            limit += f", all of which {slowest}, the slowest model, needs; a plan without it gives the others more steps"
        with_trials = min(most, self._steps(slowest, seconds[slowest], trials=True))
        if training.search_epochs and with_trials >= _STEPS_WITH_TRIALS:
            return Schedule(with_trials, True, limit)
        return Schedule(max(_FEWEST, min(most, self._steps(slowest, seconds[slowest]))), False, limit)

    def steps(self, seconds: Mapping[str, float]) -> dict[str, int]:
        return {name: self._steps(name, one) for name, one in seconds.items()}

    def _steps(self, name: str, seconds: float, trials: bool = False) -> int:
        """Steps that fit the limit, with validations and, if asked for, trials."""
        training = self._plan.training
        share = 1 + self._cost_of(name).validation / training.validate_every
        if trials:
            share += len(training.learning_rates) * training.search_epochs / training.epochs
        return int((self._hours * 3600 - _START) / (_OVERHEAD * share * seconds))

    def _cost_of(self, name: str) -> Cost:
        variant, size = self._candidates(name)[-1]
        return self._cost.of(self._plan, replace(self._plan.models[name], variant=variant, input_size=size), self._timer)

    def _candidates(self, name: str) -> list[tuple[str, Size]]:
        """Configurations from large to small; the first is the planned one."""
        model, spec = self._plan.models[name], registry.spec(name)
        prefix = f"models.{name}"
        variants = smaller_variants(spec, model.variant)
        if f"{prefix}.variant" in self._plan.overrides:
            variants = [model.variant]
        sizes = [(variant, self._size(name, variant)) for variant in variants]
        smallest = self._spatial_plan.input_size(_SMALL_SIDE)
        is_set = any(path in self._plan.overrides for path in ("side", f"{prefix}.input_size"))
        can_shrink = spec.size_inside(variants[-1]) is None and not is_set
        if can_shrink and smallest[0] * smallest[1] < sizes[-1][1][0] * sizes[-1][1][1]:
            sizes.append((variants[-1], smallest))
        return sizes

    def _size(self, name: str, variant: str) -> Size:
        """The planned size, or the one the variant works at inside."""
        inside = registry.spec(name).size_inside(variant)
        return self._plan.models[name].input_size if inside is None else (inside, inside)

    def _estimate(self, name: str, variant: str, size: Size) -> float:
        """Seconds of a step, from the measured seconds of the smallest candidate and the FLOPs of both."""
        model = self._plan.models[name]
        smallest, small_size = self._candidates(name)[-1]
        measured = self._timer.seconds(self._plan, replace(model, variant=smallest, input_size=small_size))
        if (smallest, small_size) == (variant, size):
            return measured
        return measured * self._flops(name, variant, size) / self._flops(name, smallest, small_size)

    def _flops(self, name: str, variant: str, size: Size) -> int:
        model = self._plan.models[name]
        request = ModelRequest(
            spec=registry.spec(name), channels=self._plan.channels, outputs=self._outputs, precision=model.precision,
            device="cpu", optimizer=self._plan.training.optimizer, budget=self._plan.memory_budget, batch=model.batch_size,
        )  # fmt: skip
        return flops_of(request, variant, size, model.options)

    def _why(self, seconds: float, target: int, number: int, enough: bool) -> str:
        step = f"{seconds:.2g} s a step on this machine"
        if not enough:
            return f"the smallest; {target} steps of it take more than {show_time(self._hours)}: {step}"
        if number == 0:
            return f"as large as the memory allows; {step}"
        return f"the largest for which {target} steps fit {show_time(self._hours)}: {step}"


def number_of_trials(plan: Plan, name: str) -> int | None:
    """0 if the user set the model's learning rate, so that none is searched; else None, for the settings' number."""
    return 0 if f"models.{name}.learning_rate" in plan.overrides else None


def _describe(timing: Timing) -> tuple[str, str]:
    trials = f"{timing.trial_steps} steps of trials and " if timing.trial_steps else ""
    value = f"{show_time(timing.hours)} for a fold"
    steps = f"{timing.steps} steps of {timing.seconds_per_step:.2g} s"
    return value, f"{trials}{steps}, and validations; measured on {timing.machine}"
