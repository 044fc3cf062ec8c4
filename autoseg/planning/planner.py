"""The plan of a dataset: rules asked one after the other, each decision with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoseg import models as registry
from autoseg.models.contract import ModelSpec
from autoseg.planning import overrides
from autoseg.planning.channels import Channels, decide_channels
from autoseg.planning.facts import Facts, gather
from autoseg.planning.geometry import Frame, Kind, decide_geometry, make_preparation
from autoseg.planning.hardware import decide_precision, default_budget, parse_memory, resolve_device, show_memory
from autoseg.planning.intensity import decide_normalisation
from autoseg.planning.learning import Budget, decide_budget, decide_learning_rate, decide_training
from autoseg.planning.sizing import Fit, Need, fit_model, fit_part
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import PROTOCOLS, Decision, ModelPlan, Plan, Preparation, Protocol, Training
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress, warn

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
    "mps". settings: dotted field -> value (see `overrides.apply_overrides`); also `geometry` (whole or patch) and `side`,
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
    facts = gather(fingerprint, spec, _FOLDS)
    channels, decisions = decide_channels(facts)
    frame, geometry = decide_geometry(facts, protocol, kind_of_device, budget, kind, side)
    steps = decide_budget(facts, protocol)
    training, learning = decide_training(facts, frame, protocol, kind_of_device, steps, _FOLDS, _SEED)
    decisions = [
        Decision("modality", fingerprint.modality, fingerprint.evidence),
        Decision("memory_budget", show_memory(budget), f"{kind_of_device}: {because}"),
        *decisions, *geometry, *learning,
    ]
    planned: dict[str, ModelPlan] = {}
    preparations: dict[str, Preparation] = {}
    context = _Context(facts, channels, frame, protocol, kind_of_device, budget, training, steps)
    for model in progress(chosen, "planning", len(chosen)):
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
        preparations=preparations,
        models=planned,
        decisions=tuple(decisions),
    )
    for path, value in ((overrides.GEOMETRY, kind), (overrides.SIDE, side)):
        if value is not None:
            plan = replace(plan, overrides={**plan.overrides, path: value})
    changed = overrides.apply_overrides(plan, {k: v for k, v in settings.items() if k not in overrides.AT_PLANNING})
    return _measured_again(plan, changed, context)


@dataclass(frozen=True)
class _Context:
    """What all models of a plan are given."""

    facts: Facts
    channels: Channels
    frame: Frame
    protocol: Protocol
    device: str
    budget: int
    training: Training
    steps: Budget

    def need(self, model: ModelSpec, precision: str, batch: int) -> Need:
        outputs = self.facts.outputs
        return Need(model, self.channels.count, outputs, precision, self.training.optimizer, self.budget, batch)


def _plan_model(model: ModelSpec, context: _Context) -> tuple[ModelPlan, Preparation, list[Decision]]:
    precision, why_precision = decide_precision(context.device, model.mixed_precision, model.name)
    found, decisions = fit_model(context.need(model, precision, context.steps.batch), context.frame, context.protocol)
    if not found.fits:
        _warn(model.name, found, context.budget)
    preparation = make_preparation(context.frame, context.channels, found.input_size)
    normalisation, why_normalisation = decide_normalisation(context.facts, context.channels, model)
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
        preparation=preparation.key,
        parameters=found.measured.trainable // 4,
        flops=found.measured.flops,
        memory=found.memory,
    )
    decisions += [why_precision, why_normalisation, why_rate, _why_pretrained(model)]
    return plan, preparation, decisions


def _measured_again(planned: Plan, changed: Plan, context: _Context) -> Plan:
    """Memory, parameters and operations of the models whose settings were changed; the batch in parts that fit."""
    models = dict(changed.models)
    for name, model in changed.models.items():
        before = planned.models[name]
        if all(getattr(model, field) == getattr(before, field) for field in _MEASURED):
            continue
        need = context.need(registry.spec(name), model.precision, model.batch_size)
        wanted = model.accumulate if f"models.{name}.accumulate" in changed.overrides else None
        found = fit_part(need, model.variant, model.input_size, model.options, wanted)
        if not found.fits:
            _warn(name, found, context.budget)
        models[name] = replace(
            model,
            accumulate=found.accumulate,
            parameters=found.measured.trainable // 4,
            flops=found.measured.flops,
            memory=found.memory,
        )
    return replace(changed, models=models)


def _wishes(settings: Mapping[str, str]) -> tuple[Kind | None, int | None]:
    kind, side = settings.get(overrides.GEOMETRY), settings.get(overrides.SIDE)
    if kind not in (None, "whole", "patch"):
        raise AutosegError(f"geometry cannot be {kind!r}", "choose whole or patch")
    if side is not None and not (side.isdigit() and 32 <= int(side) <= 8192 and int(side) % 32 == 0):
        raise AutosegError(f"side cannot be {side!r}", "give a multiple of 32, such as 256")
    return kind, None if side is None else int(side)  # type: ignore[return-value]


def _why_pretrained(model: ModelSpec) -> Decision:
    subject = f"models.{model.name}.pretrained"
    if not model.weights:
        return Decision(subject, "none", "no published weights are known for this architecture")
    named = ", ".join(sorted({weights.trained_on for weights in model.weights}))
    return Decision(subject, "auto", f"published weights exist ({named}): used where they are installed or in weights/")


def _warn(model: str, found: Fit, budget: int) -> None:
    warn(
        f"{model} takes {show_memory(found.memory)} for the smallest part of a batch, the budget is {show_memory(budget)}: "
        f"plan with more --memory, or leave it out"
    )
