"""A plan with expected times, fitted to a time limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from autoseg.planning.training_schedule import SHORT_BATCH, SHORT_STEPS, validation_cost
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision, Plan, Protocol, Splits

# Hours for one fold in protocol `auto` on a CPU, where the full number of steps would take days.
_HOURS_ON_CPU = 1.0


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
) -> Plan:
    """As `make_plan`, with the expected time of each model.

    hours: limit for one fold; 0 for none; None for the default, an hour in `auto` on a CPU. Variants, sizes, steps and trials
    are then chosen to fit it (see `time_budget.choose`), and the batch is smaller where few steps fit.
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
    cost = _cost(plan, stats, spatial_plan)
    limit, reason = _limit(plan, hours)
    if limit:
        outputs = spec.label_scheme().outputs
        choice = choose(plan, limit, timer, cost, spatial_plan, outputs)
        if choice is not None and choice.schedule.steps < SHORT_STEPS and _may_halve(plan):
            make = partial(make, short=True)
            plan = make()
            cost = _cost(plan, stats, spatial_plan)
            choice = choose(plan, limit, timer, cost, spatial_plan, outputs)
        if choice is not None:
            plan = _within(limit, choice, make, timer, cost)
    value = f"{show_time(limit)} for a fold" if limit else "no limit"
    plan = replace(plan, time_budget=limit, decisions=(*plan.decisions, Decision("time_budget", value, reason)))
    return with_timings(plan, timer, cost)


def _cost(plan: Plan, stats: DatasetStats, spatial_plan: SpatialPlan) -> Cost:
    batch = next(iter(plan.models.values())).batch_size
    return Cost(steps_per_epoch=math.ceil(stats.training_cases / batch), validation=validation_cost(stats, spatial_plan))


def _may_halve(plan: Plan) -> bool:
    """Whether the batch is the planner's, and the number of steps too."""
    is_set = any(path == "training.epochs" or path.endswith(".batch_size") for path in plan.overrides)
    return not is_set and all(model.batch_size > SHORT_BATCH for model in plan.models.values())


def _within(limit: float, choice: TimeChoice, make: Callable[..., Plan], timer: StepTimer, cost: Cost) -> Plan:
    """The plan for a choice, with fewer steps if the validations of its schedule take longer than estimated."""
    while True:
        plan = make(choice=choice)
        model = plan.models[choice.slowest]
        hours = expected_time(
            plan.training, timer.seconds(plan, model), cost, trials=number_of_trials(plan, choice.slowest)
        ).hours
        shorter = choice.shorter(0.98 * limit / hours)
        is_fixed = "training.epochs" in plan.overrides or shorter.schedule.steps >= choice.schedule.steps
        if hours <= limit or is_fixed:
            return plan
        choice = shorter


def _limit(plan: Plan, hours: float | None) -> tuple[float, str]:
    if plan.protocol == "benchmark":
        return 0.0, "the study's protocol fixes steps and sizes"
    if hours is not None:
        return hours, overrides.SET_BY_USER
    if plan.protocol == "auto" and plan.device == "cpu":
        return _HOURS_ON_CPU, "the default on a CPU; set another with --hours or --minutes, or none with --hours 0"
    return 0.0, "set one with --hours or --minutes"
