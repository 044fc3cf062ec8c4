"""A plan with expected times, fitted to a time limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autoseg.planning import overrides
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.planning.geometry import SpatialPlan, decide_geometry
from autoseg.planning.initial_weights import WeightsPolicy
from autoseg.planning.planner import all_full_resolution, make_plan, planned_stats, planning_settings
from autoseg.planning.time_budget import (
    Cost,
    StepTimer,
    TimeChoice,
    choose,
    expected_time,
    number_of_trials,
    show_time,
    with_timings,
)
from autoseg.planning.training_schedule import FORWARD_COST, SHORT_BATCH, SHORT_STEPS, validation_cost
from autoseg.planning.transfer import freezable
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision, Plan, Protocol, Splits

# Hours for one fold in protocol `auto` on a CPU, where the full number of steps would take days.
_HOURS_ON_CPU = 1.0
# Views of each image that a frozen encoder sees, and the part of the time they may take.
_VIEWS, _ENCODING_SHARE = 4, 0.5


def make_timed_plan(
    fingerprint: Fingerprint,
    spec: DatasetSpec,
    protocol: Protocol,
    models: Sequence[str],
    memory: int | str | None = None,
    device: str = "auto",
    *,
    settings: Mapping[str, str] | None = None,
    splits: Splits | None = None,
    timer: StepTimer,
    hours: float | None = None,
    weights: WeightsPolicy | None = None,
    may_freeze: bool = True,
) -> Plan:
    """As `make_plan`, with the expected time of each model.

    hours: limit for one fold; 0 for none; None for the default, an hour in `auto` on a CPU. Variants, sizes, steps and trials
    are then chosen to fit it (see `time_budget.choose`). Where few steps fit, the encoders of plain transformers are frozen
    (unless may_freeze is False), and if that is not enough, the batch is smaller.
    """
    make = partial(
        make_plan, fingerprint, spec, protocol, models, memory, device, settings=settings, splits=splits, weights=weights
    )
    plan = make()
    asked = planning_settings(settings or {})
    _, stats = planned_stats(fingerprint, spec, protocol, settings or {}, splits)
    spatial_plan, _ = decide_geometry(
        stats, protocol, plan.device, plan.memory_budget, asked.geometry, asked.side,
        full_resolution=all_full_resolution(plan.models),
    )  # fmt: skip
    limit, reason = _limit(plan, hours)
    if limit:
        outputs = spec.label_scheme().outputs
        fit = _Fit(limit=limit, timer=timer, stats=stats, spatial_plan=spatial_plan, outputs=outputs)
        plan = fit.plan(plan, make, weights or WeightsPolicy(), may_freeze)
    value = f"{show_time(limit)} for a fold" if limit else "no limit"
    plan = replace(plan, time_budget=limit, decisions=(*plan.decisions, Decision("time_budget", value, reason)))
    return with_timings(plan, timer, _cost(plan, stats, spatial_plan))


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Makes a plan that fits a limit in hours."""

    limit: float
    timer: StepTimer
    stats: DatasetStats
    spatial_plan: SpatialPlan
    outputs: int

    def plan(self, plan: Plan, make: Callable[..., Plan], weights: WeightsPolicy, may_freeze: bool) -> Plan:
        """plan: without a limit. make: makes it, with changes."""
        limit, choice = self.limit, self._choose(plan, self.limit)
        few = [name for name in freezable(plan, weights) if choice is not None and choice.steps[name] < SHORT_STEPS]
        if may_freeze and few:
            frozen = make(frozen=dict.fromkeys(few, _VIEWS))
            views, encoding = self._views(plan, few, self._choose(frozen, limit))
            if views:
                make = partial(make, frozen=views)
                plan = make()
                choice = self._choose(plan, limit)
                if choice is None or choice.slowest in views:
                    limit -= encoding
                    choice = self._choose(plan, limit)
        if choice is not None and choice.schedule.steps < SHORT_STEPS and _may_halve(plan):
            make = partial(make, short=True)
            plan = make()
            choice = self._choose(plan, limit)
        return plan if choice is None else self._within(limit, choice, make)

    def _choose(self, plan: Plan, limit: float) -> TimeChoice | None:
        return choose(plan, limit, self.timer, self._cost(plan), self.spatial_plan, self.outputs)

    def _cost(self, plan: Plan) -> Cost:
        return _cost(plan, self.stats, self.spatial_plan)

    def _views(self, plan: Plan, names: Iterable[str], choice: TimeChoice | None) -> tuple[dict[str, int], float]:
        """Model -> views of each image for which there is time, without models that have time for none; and the hours that
        they take, of the model that needs most. choice: that of the frozen models."""
        views, hours = {}, 0.0
        for name in names:
            model = plan.models[name]
            if choice is not None:
                model = replace(model, variant=choice.configs[name].variant, input_size=choice.configs[name].input_size)
            of_image = self.timer.seconds(plan, model) / model.batch_size * FORWARD_COST
            of_view = of_image * self.stats.training_cases / 3600
            number = min(_VIEWS, int(self.limit * _ENCODING_SHARE / of_view))
            if number:
                views[name], hours = number, max(hours, number * of_view)
        return views, hours

    def _within(self, limit: float, choice: TimeChoice, make: Callable[..., Plan]) -> Plan:
        """The plan for a choice, with fewer steps if the validations of its schedule take longer than estimated."""
        while True:
            plan = make(choice=choice)
            model, trials = plan.models[choice.slowest], number_of_trials(plan, choice.slowest)
            cost = self._cost(plan).of(plan, model, self.timer)
            hours = expected_time(plan.training, self.timer.seconds(plan, model), cost, trials=trials).hours
            shorter = choice.shorter(0.98 * limit / hours)
            is_fixed = "training.epochs" in plan.overrides or shorter.schedule.steps >= choice.schedule.steps
            if hours <= limit or is_fixed:
                return plan
            choice = shorter


def _cost(plan: Plan, stats: DatasetStats, spatial_plan: SpatialPlan) -> Cost:
    batch = next(iter(plan.models.values())).batch_size
    return Cost(steps_per_epoch=math.ceil(stats.training_cases / batch), validation=validation_cost(stats, spatial_plan))


def _may_halve(plan: Plan) -> bool:
    """Whether the batch is the planner's, and the number of steps too."""
    is_set = any(path == "training.epochs" or path.endswith(".batch_size") for path in plan.overrides)
    return not is_set and all(model.batch_size > SHORT_BATCH for model in plan.models.values())


def _limit(plan: Plan, hours: float | None) -> tuple[float, str]:
    if plan.protocol == "benchmark":
        return 0.0, "the study's protocol fixes steps and sizes"
    if hours is not None:
        return hours, overrides.SET_BY_USER
    if plan.protocol == "auto" and plan.device == "cpu":
        return _HOURS_ON_CPU, "the default on a CPU; set another with --hours or --minutes, or none with --hours 0"
    return 0.0, "set one with --hours or --minutes"
