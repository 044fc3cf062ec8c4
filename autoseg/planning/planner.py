"""The plan of a dataset: rules asked one after the other, each decision with its reason."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoseg import models as registry
from autoseg.models.base import ModelSpec
from autoseg.planning import overrides
from autoseg.planning.channels import Channels, decide_channels
from autoseg.planning.dataset_stats import DatasetStats, dataset_stats
from autoseg.planning.geometry import Kind, SpatialPlan, decide_geometry, make_preprocessing
from autoseg.planning.hardware import (
    decide_memory_format,
    decide_precision,
    default_budget,
    parse_memory,
    resolve_device,
    show_memory,
)
from autoseg.planning.model_checks import require_usable
from autoseg.planning.normalisation import decide_normalisation
from autoseg.planning.prompts import prompts
from autoseg.planning.sizing import MemoryFit, ModelRequest, admissible_size, fit_model, fit_part, flops_of, holds
from autoseg.planning.splits import decide_folds
from autoseg.planning.training_schedule import Budget, decide_budget, decide_learning_rate, decide_training
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import PROTOCOLS, Decision, ModelPlan, Plan, PreprocessingConfig, Protocol, Training
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress_bar

logger = logging.getLogger(__name__)

_FOLDS, _SEED = 5, 0
# What changes the memory a model takes.
_MEASURED = ("variant", "input_size", "batch_size", "accumulate", "precision", "options")


def make_plan(
    fingerprint: Fingerprint,
    spec: DatasetSpec,
    protocol: Protocol,
    models: Sequence[str],
    memory: int | str | None = None,
    device: str = "auto",
    settings: Mapping[str, str] | None = None,
) -> Plan:
    """Decide for the dataset, then for each model.

    memory: bytes a training may take (or "8G"), by default a share of what the device has. device: "auto", "cpu", "cuda",
    "mps". settings: dotted field -> value (see `overrides.apply_overrides`); also `geometry` (resize or patch) and `side`,
    in pixels, of a square as large as the network's input. Raises AutosegError for unknown models, fields and values.
    """
    if protocol not in PROTOCOLS:
        raise AutosegError(f"there is no protocol {protocol!r}", f"choose one of {', '.join(PROTOCOLS)}")
    if not models:
        raise AutosegError("no model was named", f"known: {', '.join(registry.names())}")
    chosen = [registry.spec(name) for name in dict.fromkeys(models)]
    settings = dict(settings or {})
    kind, side = _wishes(settings)
    kind_of_device = resolve_device(device)
    memory = parse_memory(memory) if isinstance(memory, str) else memory
    budget, because = (memory, "set by the user") if memory else default_budget(kind_of_device)
    stats = dataset_stats(fingerprint, spec, _FOLDS)
    channels, decisions = decide_channels(stats)
    frame, geometry = decide_geometry(stats, protocol, kind_of_device, budget, kind, side)
    steps, why_batch = decide_budget(stats, protocol, kind_of_device, budget)
    training, learning = decide_training(
        stats, frame, protocol=protocol, device=kind_of_device, budget=steps, folds=_FOLDS, seed=_SEED
    )
    decisions = [
        Decision("modality", fingerprint.modality, fingerprint.evidence, stats.cite("modality")),
        Decision("memory_budget", show_memory(budget), f"{kind_of_device}: {because}"),
        *decisions, *geometry, why_batch, *learning, decide_folds(fingerprint, spec, _FOLDS),
    ]
    planned: dict[str, ModelPlan] = {}
    preparations: dict[str, PreprocessingConfig] = {}
    context = _Context(
        stats=stats, channels=channels, frame=frame, protocol=protocol, device=kind_of_device, budget=budget,
        training=training, steps=steps,
    )  # fmt: skip
    for model in progress_bar(chosen, "planning", len(chosen)):
        planned[model.name], preparation, reasons = _plan_model(model, context)
        preparations[preparation.key] = preparation
        decisions += reasons
    plan = Plan(
        dataset=fingerprint.dataset,
        protocol=protocol,
        content_hash=fingerprint.content_hash,
        memory_budget=budget,
        device=kind_of_device,
        channels=channels.count,
        training=training,
        preprocessing=preparations,
        models=planned,
        decisions=tuple(decisions),
        prompts=prompts(list(spec.label_scheme().foreground), f"{spec.modality} {spec.name} {fingerprint.modality}"),
    )
    for path, value in ((overrides.GEOMETRY, kind), (overrides.SIDE, side)):
        if value is not None:
            plan = replace(plan, overrides={**plan.overrides, path: value})
    changed = overrides.apply_overrides(plan, {k: v for k, v in settings.items() if k not in overrides.AT_PLANNING})
    finished = _measured_again(plan, _resized(plan, changed, context), context)
    return replace(finished, decisions=(*finished.decisions, _what_memory_holds(finished)))


@dataclass(frozen=True, kw_only=True)
class _Context:
    """What all models of a plan are given."""

    stats: DatasetStats
    channels: Channels
    frame: SpatialPlan
    protocol: Protocol
    device: str
    budget: int
    training: Training
    steps: Budget

    def need(self, model: ModelSpec, precision: str, batch: int) -> ModelRequest:
        outputs = self.stats.outputs
        return ModelRequest(
            spec=model,
            channels=self.channels.count,
            outputs=outputs,
            precision=precision,
            optimizer=self.training.optimizer,
            budget=self.budget,
            batch=batch,
        )


def _plan_model(model: ModelSpec, context: _Context) -> tuple[ModelPlan, PreprocessingConfig, list[Decision]]:
    precision, why_precision = decide_precision(context.device, model.mixed_precision, model.name)
    memory_format, why_format = decide_memory_format(model.name)
    require_usable(model.name, model.default_variant)
    need = context.need(model, precision, context.steps.batch)
    found, decisions = fit_model(need, context.frame, context.protocol)
    if found.variant != model.default_variant:
        require_usable(model.name, found.variant)
    if not found.fits:
        _warn(model.name, found, context.budget)
    preparation = make_preprocessing(context.frame, context.channels, found.input_size)
    normalisation, why_normalisation = decide_normalisation(context.stats, context.channels, model)
    rate, why_rate = decide_learning_rate(context.protocol, model, context.training.learning_rates)
    pretrained = "auto" if model.weights else "none"
    warmup = min(model.warmup_epochs, max(0, context.training.epochs // 10))
    plan = ModelPlan(
        model=model.name,
        variant=found.variant,
        input_size=found.input_size,
        batch_size=context.steps.batch,
        accumulate=found.accumulate,
        precision=precision,
        pretrained=pretrained,  # type: ignore[arg-type]
        learning_rate=rate,
        warmup_epochs=warmup,
        normalisation=normalisation,
        preprocessing=preparation.key,
        parameters=found.measured.trainable // 4,
        flops=flops_of(need, found.variant, found.input_size),
        memory=found.memory,
        memory_format=memory_format,
    )
    decisions += [why_precision, why_format, why_normalisation, why_rate, _why_pretrained(model)]
    return plan, preparation, decisions


def _resized(planned: Plan, changed: Plan, context: _Context) -> Plan:
    """A variant that was set may work at another size inside than the planned one: its input follows, unless set too."""
    for name, model in changed.models.items():
        spec = registry.spec(name)
        known = {variant.name for variant in spec.variants}
        if model.variant not in known:
            offered = ", ".join(variant.name for variant in spec.variants)
            raise AutosegError(f"models.{name}.variant cannot be {model.variant!r}", f"choose one of: {offered}")
        before = planned.models[name].variant
        same = spec.size_inside(model.variant) == spec.size_inside(before) or context.protocol == "benchmark"
        if same or f"models.{name}.input_size" in changed.overrides:
            continue
        because = f"the variant {model.variant} was set, which works at another size than {before}"
        changed = overrides.with_input_size(changed, name, admissible_size(spec, model.variant, context.frame), because)
    return changed


def _measured_again(planned: Plan, changed: Plan, context: _Context) -> Plan:
    """Memory, parameters and operations of the models whose settings were changed; the batch in parts that fit."""
    models = dict(changed.models)
    for name, model in changed.models.items():
        before, optimizer = planned.models[name], changed.training.optimizer
        if optimizer == planned.training.optimizer and all(getattr(model, one) == getattr(before, one) for one in _MEASURED):
            continue
        need = replace(context.need(registry.spec(name), model.precision, model.batch_size), optimizer=optimizer)
        wanted = model.accumulate if f"models.{name}.accumulate" in changed.overrides else None
        found = fit_part(need, model.variant, model.input_size, model.options, wanted)
        if not found.fits:
            _warn(name, found, context.budget)
        if need.spec.batch_statistics and model.batch_size == found.accumulate:
            logger.warning(f"{name} normalises over the batch, and now sees one image at a time: its statistics will be noise")
        models[name] = replace(
            model,
            accumulate=found.accumulate,
            parameters=found.measured.trainable // 4,
            flops=flops_of(need, model.variant, model.input_size, model.options),
            memory=found.memory,
        )
    return replace(changed, models=models)


def _what_memory_holds(plan: Plan) -> Decision:
    """Which models see the whole batch at once, which in parts, which not at all."""
    held = {name: holds(plan.memory_budget, model.memory) for name, model in plan.models.items()}
    parts = [
        f"{name} {model.accumulate} x {model.batch_size // model.accumulate}"
        for name, model in plan.models.items()
        if held[name] and model.accumulate > 1
    ]
    beyond = [f"{name} ({show_memory(model.memory)})" for name, model in plan.models.items() if not held[name]]
    at_once = sum(held.values()) - len(parts)
    value = f"{at_once} models at once, {len(parts)} in parts, {len(beyond)} not at all"
    because = f"within {show_memory(plan.memory_budget)}"
    if parts:
        because += f"; gradients are gathered over parts, so that a step still sees the batch: {', '.join(parts)}"
    if beyond:
        because += f"; the smallest part is too large for {', '.join(beyond)}: those need more --memory"
    return Decision("batches_held", value, because)


def _wishes(settings: Mapping[str, str]) -> tuple[Kind | None, int | None]:
    kind, side = settings.get(overrides.GEOMETRY), settings.get(overrides.SIDE)
    if kind not in (None, "resize", "patch"):
        raise AutosegError(f"geometry cannot be {kind!r}", "choose resize or patch")
    if side is not None and not (side.isdigit() and 32 <= int(side) <= 8192 and int(side) % 32 == 0):
        raise AutosegError(f"side cannot be {side!r}", "give a multiple of 32, such as 256")
    return kind, None if side is None else int(side)  # type: ignore[return-value]


def _why_pretrained(model: ModelSpec) -> Decision:
    subject = f"models.{model.name}.pretrained"
    if not model.weights:
        return Decision(subject, "none", "no published weights are known for this architecture")
    named = ", ".join(sorted({weights.trained_on for weights in model.weights}))
    return Decision(subject, "auto", f"published weights exist ({named}): used where they are installed or in weights/")


def _warn(model: str, found: MemoryFit, budget: int) -> None:
    logger.warning(
        f"{model} takes {show_memory(found.memory)} for the smallest part of a batch, the budget is {show_memory(budget)}: "
        f"plan with more --memory, or leave it out"
    )
