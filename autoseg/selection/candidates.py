"""The candidates of a selection: model, variant, geometry, learning rate, frozen or learning encoder."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from autoseg.models import registry
from autoseg.planning.overrides import apply_overrides, with_decision
from autoseg.planning.sizing import smaller_variants
from autoseg.planning.time_budget import StepTimer
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import ModelPlan, Plan
from autoseg.schema.selection import SelectionCandidate
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress_bar

logger = logging.getLogger(__name__)

# A frozen encoder sees so many views of each image once; then a step costs the decoder only, and a linear one next to nothing.
_FROZEN = {"encoder_rate": "0", "cached_views": "8"}
_DECODERS: tuple[dict[str, str], ...] = ({"options.decoder": "linear"}, {})
# Patches differ from a resized image if the images have clearly more pixels than the input.
_MORE_PIXELS = 1.3
_SIDE_MULTIPLE = 32
# Half of the planner's side is tried if it is not smaller.
_SMALLEST_SIDE = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class Planner(Protocol):
    """Makes plans of the dataset. timed: fitted to the time of a fold, with measured steps."""

    def __call__(self, model: str, settings: Mapping[str, str], *, timed: bool) -> Plan: ...


@dataclass(frozen=True)
class PlannedCandidate:
    """A candidate and its plan, which has this model only."""

    candidate: SelectionCandidate
    plan: Plan

    @property
    def model_plan(self) -> ModelPlan:
        return self.plan.models[self.candidate.model]


@dataclass(frozen=True)
class Proposal:
    """All candidates in the order in which they are tried, and the models that could not be planned, with the reason."""

    candidates: tuple[PlannedCandidate, ...]
    refused: dict[str, str] = field(default_factory=dict)


def propose(
    models: Sequence[str], plan: Planner, timer: StepTimer, fingerprint: Fingerprint, has_weights: Callable[[Plan, str], bool]
) -> Proposal:
    """Each model as the planner would train it; then with one and with several settings changed; of each the fastest first.

    The changes are the next smaller variant, half the input's side, the other geometry, the other learning rates, and a frozen
    encoder. has_weights: whether a model of a plan starts from weights, without which a frozen encoder is worth nothing. Raises
    AutosegError if no model can be planned.
    """
    candidates: dict[str, PlannedCandidate] = {}
    refused: dict[str, str] = {}
    for model in progress_bar(models, "planning candidates", len(models)):
        try:
            base = plan(model, {}, timed=True)
        except AutosegError as error:
            refused[model] = error.problem
            logger.warning(f"{model} is left out: {error.problem}")
            continue
        for one in _of_model(model, base, plan, timer, fingerprint, has_weights):
            candidates.setdefault(one.candidate.name, one)
    if not candidates:
        raise AutosegError(
            f"none of the models can be planned: {'; '.join(f'{model}: {why}' for model, why in refused.items())}",
            "name other models with --models",
        )
    ordered = sorted(candidates.values(), key=lambda one: _order(one.candidate))
    return Proposal(tuple(ordered), refused)


def _order(one: SelectionCandidate) -> tuple[int, float, str]:
    return one.changes, one.step_seconds, one.name


def _of_model(
    model: str,
    base: Plan,
    plan: Planner,
    timer: StepTimer,
    fingerprint: Fingerprint,
    has_weights: Callable[[Plan, str], bool],
) -> Iterator[PlannedCandidate]:
    timing = base.models[model].timing
    assert timing is not None, "timed plans have times"
    for changes, settings, changed in _configurations(model, base, plan, fingerprint):
        planned = changed.models[model]
        # Steps of configurations that may never be tried are estimated; the first training of each is measured.
        seconds = timing.seconds_per_step * planned.flops / max(1, base.models[model].flops)
        seconds = timing.seconds_per_step if changed is base else seconds
        yield from _with_rates(model, changed, settings, changes, seconds)
    for decoder in _DECODERS if has_weights(base, model) else ():
        settings = {f"models.{model}.{name}": value for name, value in (_FROZEN | decoder).items()}
        try:
            frozen = apply_overrides(base, settings)
            seconds = timer.seconds(frozen, frozen.models[model])
        except AutosegError as error:
            kind = "linear decoder on a frozen encoder" if decoder else "frozen encoder"
            logger.info(f"{model} is not tried with a {kind}: {error.problem}")
            continue
        yield from _with_rates(model, frozen, settings, 1 + len(decoder), seconds)


def _configurations(
    model: str, base: Plan, plan: Planner, fingerprint: Fingerprint
) -> Iterator[tuple[int, dict[str, str], Plan]]:
    """Number of changes, the settings of the geometry, and the plan."""
    yield 0, {}, base
    for settings in _changes(model, base, fingerprint):
        try:
            changed = plan(model, settings, timed=False)
        except AutosegError as error:
            logger.info(f"{model} with {settings} is left out: {error.problem}")
            continue
        geometry = {name: value for name, value in settings.items() if not name.startswith("models.")}
        yield 1, geometry, _with_rates_of(base, changed, model)


def _with_rates_of(base: Plan, changed: Plan, model: str) -> Plan:
    """The plan with the learning rates of another one: `changed` was made without a time limit, where lower ones are usual."""
    training = replace(changed.training, learning_rates=base.training.learning_rates)
    planned = replace(changed.models[model], learning_rate=base.models[model].learning_rate)
    changed = replace(changed, training=training, models={model: planned})
    for decision in base.decisions:
        if decision.subject in ("training.learning_rates", f"models.{model}.learning_rate"):
            changed = with_decision(changed, decision)
    return changed


def _changes(model: str, base: Plan, fingerprint: Fingerprint) -> Iterator[dict[str, str]]:
    """The settings of the next smaller variant, of half the side, and of the other geometry."""
    planned, spec = base.models[model], registry.spec(model)
    variants = smaller_variants(spec, planned.variant)
    (height, width), (rows, columns) = planned.input_size, fingerprint.median_size
    variant, size = f"models.{model}.variant", f"models.{model}.input_size"
    if len(variants) > 1:
        inside = spec.size_inside(variants[1]) is not None
        yield {variant: variants[1]} | ({} if inside else {size: _size_text(planned)})
    half = tuple(side // 2 // _SIDE_MULTIPLE * _SIDE_MULTIPLE for side in (height, width))
    if spec.size_inside(planned.variant) is None and min(half) >= _SMALLEST_SIDE:
        yield {variant: planned.variant, size: f"{half[0]}x{half[1]}"}
    kind = base.preprocessing[planned.preprocessing].geometry
    if kind == "patch" or rows * columns > _MORE_PIXELS * height * width:
        side = round(math.sqrt(height * width) / _SIDE_MULTIPLE) * _SIDE_MULTIPLE
        yield {"geometry": "resize" if kind == "patch" else "patch", "side": str(side), variant: planned.variant}


def _with_rates(
    model: str, plan: Plan, settings: Mapping[str, str], changes: int, seconds: float
) -> Iterator[PlannedCandidate]:
    """The configuration with the planned learning rate, and with each other one of the plan's list."""
    planned = plan.models[model]
    spec = registry.spec(model)
    rates = [planned.learning_rate, *(rate for rate in plan.training.learning_rates if rate != planned.learning_rate)]
    geometry = plan.preprocessing[planned.preprocessing].geometry
    frozen = f"models.{model}.encoder_rate" in settings
    for number, rate in enumerate(rates):
        set_by_hand = {
            **settings,
            f"models.{model}.variant": planned.variant,
            f"models.{model}.input_size": _size_text(planned),
            f"models.{model}.learning_rate": f"{rate:g}",
        }
        parts = [model, planned.variant, _size_text(planned), f"{rate:g}"]
        parts += (["patch"] if geometry == "patch" else []) + (["frozen"] if frozen else [])
        parts += ["linear"] if is_linear(settings) else []
        candidate = SelectionCandidate(
            name="-".join(_UNSAFE.sub("+", part) for part in parts), model=model, family=spec.family, variant=planned.variant,
            geometry=geometry, input_size=planned.input_size, learning_rate=rate, frozen=frozen,
            changes=changes + (number > 0), step_seconds=seconds, settings=set_by_hand,
        )  # fmt: skip
        yield PlannedCandidate(candidate, _of_one_model(plan, model, rate))


def is_linear(settings: Mapping[str, str]) -> bool:
    """Whether the settings of a candidate choose a linear decoder."""
    return any(name.endswith(".options.decoder") and value == "linear" for name, value in settings.items())


def _of_one_model(plan: Plan, model: str, rate: float) -> Plan:
    planned = replace(plan.models[model], learning_rate=rate)
    own = f"models.{model}."
    decisions = tuple(one for one in plan.decisions if not one.subject.startswith("models.") or one.subject.startswith(own))
    preprocessing = {planned.preprocessing: plan.preprocessing[planned.preprocessing]}
    return replace(plan, models={model: planned}, preprocessing=preprocessing, decisions=decisions)


def _size_text(planned: ModelPlan) -> str:
    return f"{planned.input_size[0]}x{planned.input_size[1]}"
