"""Makes the plan of a dataset. Each decision has a reason."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from autoseg import models as registry
from autoseg.models.base import ModelSpec
from autoseg.planning import augmentation, normalisation, overrides
from autoseg.planning.channels import Channels, decide_channels
from autoseg.planning.dataset_stats import DatasetStats, dataset_stats
from autoseg.planning.duplicates import Duplicates, decide_duplicates, duplicates_to_remove
from autoseg.planning.geometry import Asked, SpatialPlan, decide_geometry, make_preprocessing
from autoseg.planning.hardware import (
    decide_memory_format,
    decide_precision,
    default_budget,
    parse_memory,
    resolve_device,
    show_memory,
)
from autoseg.planning.initial_weights import WeightsPolicy, decide_weights
from autoseg.planning.model_checks import require_usable
from autoseg.planning.normalisation import decide_normalisation
from autoseg.planning.prompts import prompts
from autoseg.planning.sizing import MemoryFit, ModelConfig, ModelRequest, admissible_size, fit_model, fit_part, flops_of, holds
from autoseg.planning.splits import decide_folds, decide_given_folds, decide_groups
from autoseg.planning.study_protocol import decision as study_decision
from autoseg.planning.time_budget import TimeChoice
from autoseg.planning.training_schedule import Budget, decide_budget, decide_learning_rate, decide_training
from autoseg.planning.transfer import decide_transfer, options_of
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import PROTOCOLS, Decision, ModelPlan, Plan, PreprocessingConfig, Protocol, Splits, Training
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress_bar
from autoseg.weights.pretrained import AUTO

logger = logging.getLogger(__name__)

FOLDS, _SEED = 5, 0
# Fields that change the memory of a model.
_MEMORY_FIELDS = ("variant", "input_size", "batch_size", "accumulate", "precision", "options", "encoder_rate")


def make_plan(
    fingerprint: Fingerprint,
    spec: DatasetSpec,
    protocol: Protocol,
    models: Sequence[str],
    memory: int | str | None = None,
    device: str = "auto",
    settings: Mapping[str, str] | None = None,
    *,
    splits: Splits | None = None,
    choice: TimeChoice | None = None,
    short: bool = False,
    frozen: Mapping[str, int] | None = None,
    weights: WeightsPolicy | None = None,
) -> Plan:
    """Decides for the dataset, then for each model.

    memory: budget of a training in bytes (or "8G"); default: a fraction of the device's memory. device: "auto", "cpu", "cuda",
    "mps". settings: dotted field -> value (see `overrides.apply_overrides`), and those of `PlanningSettings`, such as `side`,
    in pixels, of a square as large as the network's input. splits: folds that the user gave. choice: variants, sizes, steps
    and trials for a time limit. short: so few steps fit it that the batch is smaller. frozen: model -> views of each image
    that its frozen encoder sees once. weights: where published weights are, and which are allowed. Raises AutosegError for
    unknown models, fields and values.
    """
    specs = _specs(protocol, models)
    settings = dict(settings or {})
    asked = planning_settings(settings)
    duplicates, stats = planned_stats(fingerprint, spec, protocol, settings, splits)
    device_type = resolve_device(device)
    budget, memory_decision = _decide_memory(memory, device, device_type)
    folds = len(splits.folds) if splits is not None else FOLDS
    channels, decisions = decide_channels(stats)
    spatial_plan, geometry_decisions = decide_geometry(
        stats, protocol, device_type, budget, asked.geometry, asked.side, full_resolution=all_full_resolution(models)
    )
    training_budget, batch_decision = decide_budget(stats, protocol, device_type, budget, short=short)
    training, training_decisions = decide_training(
        stats, spatial_plan, protocol=protocol, device=device_type, budget=training_budget, folds=folds, seed=_SEED,
        schedule=choice.schedule if choice else None, augmentation=asked.augmentation or "planned",
        frozen=bool(frozen),
    )  # fmt: skip
    training = replace(training, duplicates=duplicates)
    decisions = [
        *([study_decision("protocol", protocol)] if protocol == "benchmark" else []),
        Decision("modality", fingerprint.modality, fingerprint.evidence, stats.cite("modality")),
        memory_decision,
        *decisions,
        *geometry_decisions,
        batch_decision,
        *training_decisions,
        *_decide_splits(fingerprint, spec, duplicates, protocol, splits),
    ]
    context = _Context(
        stats=stats, channels=channels, spatial_plan=spatial_plan, protocol=protocol, device=device_type, budget=budget,
        training=training, training_budget=training_budget, configs=choice.configs if choice else {},
        frozen=frozen or {}, settings=settings, weights=weights or WeightsPolicy(), normalisation=asked.normalisation,
    )  # fmt: skip
    planned_models, preprocessing, reasons = _plan_models(specs, context)
    plan = Plan(
        dataset=fingerprint.dataset,
        protocol=protocol,
        content_hash=fingerprint.content_hash,
        memory_budget=budget,
        device=device_type,
        channels=channels.count,
        training=training,
        preprocessing=preprocessing,
        models=planned_models,
        decisions=(*decisions, *reasons),
        overrides={path: value for path, value in vars(asked).items() if value is not None},
        licence="commercial" if context.weights.commercial else "any",
        prompts=prompts(list(spec.label_scheme().foreground), f"{spec.modality} {spec.name} {fingerprint.modality}"),
    )
    changed = overrides.apply_overrides(plan, {k: v for k, v in settings.items() if k not in overrides.AT_PLANNING})
    complete = _remeasure(plan, _adapt_input_sizes(plan, changed, context), context)
    return replace(complete, decisions=(*complete.decisions, _decide_batches_held(complete)))


def _decide_memory(memory: int | str | None, device: str, device_type: str) -> tuple[int, Decision]:
    budget, reason = default_budget(device_type if device == "auto" else device)
    if memory is not None:
        budget, reason = parse_memory(memory), overrides.SET_BY_USER
    return budget, Decision("memory_budget", show_memory(budget), f"{device_type}: {reason}")


def _decide_splits(
    fingerprint: Fingerprint, spec: DatasetSpec, duplicates: Duplicates, protocol: Protocol, splits: Splits | None
) -> list[Decision]:
    if splits is not None:
        return [decide_given_folds(splits), *decide_groups(fingerprint, spec)]
    return [
        decide_folds(fingerprint, spec, FOLDS),
        decide_duplicates(duplicates, fingerprint, spec, protocol == "benchmark"),
        *decide_groups(fingerprint, spec),
    ]


@dataclass(frozen=True, kw_only=True)
class _Context:
    """What all models of a plan have in common."""

    stats: DatasetStats
    channels: Channels
    spatial_plan: SpatialPlan
    protocol: Protocol
    device: str
    budget: int
    training: Training
    training_budget: Budget
    configs: Mapping[str, ModelConfig]
    frozen: Mapping[str, int]
    settings: Mapping[str, str]
    weights: WeightsPolicy
    normalisation: normalisation.Kind | None

    def request(self, model: ModelSpec, precision: str, batch: int) -> ModelRequest:
        outputs = self.stats.outputs
        return ModelRequest(
            spec=model,
            channels=self.channels.count,
            outputs=outputs,
            precision=precision,
            device=self.device,
            optimizer=self.training.optimizer,
            budget=self.budget,
            batch=batch,
            frozen=model.name in self.frozen,
        )


def _plan_models(
    specs: Sequence[ModelSpec], context: _Context
) -> tuple[dict[str, ModelPlan], dict[str, PreprocessingConfig], list[Decision]]:
    models: dict[str, ModelPlan] = {}
    preprocessing: dict[str, PreprocessingConfig] = {}
    decisions: list[Decision] = []
    for model in progress_bar(specs, "planning", len(specs)):
        models[model.name], config, reasons = _plan_model(model, context)
        preprocessing[config.key] = config
        decisions += reasons
    return models, preprocessing, decisions


def _plan_model(model: ModelSpec, context: _Context) -> tuple[ModelPlan, PreprocessingConfig, list[Decision]]:
    precision, precision_decision = decide_precision(context.device, model.mixed_precision, model.name)
    memory_format, format_decision = decide_memory_format(model.name)
    require_usable(model.name, model.default_variant)
    request = context.request(model, precision, context.training_budget.batch)
    fit, decisions = fit_model(request, context.spatial_plan, context.protocol, context.configs.get(model.name))
    if fit.variant != model.default_variant:
        require_usable(model.name, fit.variant)
    if not fit.fits:
        _warn_over_budget(model.name, fit, context.budget)
    config = make_preprocessing(context.spatial_plan, context.channels, fit.input_size)
    set_variant, set_choice = (context.settings.get(f"models.{model.name}.{field}") for field in ("variant", "pretrained"))
    benchmark = context.protocol == "benchmark"
    weights = decide_weights(model, set_variant or fit.variant, context.weights, set_choice or AUTO, study_too=benchmark)
    expected, rates = weights.expected, context.training.learning_rates
    values, normalisation_decision = decide_normalisation(
        context.stats, context.channels, model.name, expected,
        context.normalisation or ("half" if benchmark else "weights"), is_set=context.normalisation is not None,
    )  # fmt: skip
    rate, rate_decision = decide_learning_rate(context.protocol, model, rates, expected is not None)
    warmup = 0 if benchmark else min(model.warmup_epochs, overrides.max_warmup(context.training.epochs))
    steps = context.training.epochs * context.training_budget.steps
    views = context.frozen.get(model.name, 0)
    transfer, transfer_decisions = decide_transfer(model, context.protocol, steps, expected is not None, views)
    plan = ModelPlan(
        model=model.name,
        variant=fit.variant,
        input_size=fit.input_size,
        batch_size=context.training_budget.batch,
        accumulate=fit.accumulate,
        precision=precision,
        pretrained=weights.choice,
        learning_rate=rate,
        warmup_epochs=warmup,
        normalisation=values,
        preprocessing=config.key,
        parameters=fit.measured.trainable // 4,
        flops=flops_of(request, fit.variant, fit.input_size),
        memory=fit.memory,
        memory_format=memory_format,
        options=options_of(transfer),
        encoder_rate=transfer.encoder_rate,
        layer_decay=transfer.layer_decay,
        weight_decay=transfer.weight_decay,
        warmup_share=transfer.warmup_share,
        cached_views=views,
    )
    decisions += [precision_decision, format_decision, normalisation_decision, rate_decision, *transfer_decisions]
    decisions.append(weights.decision)
    return plan, config, decisions


def _adapt_input_sizes(planned: Plan, changed: Plan, context: _Context) -> Plan:
    """Adapts the input size if a variant with another internal size was set, unless the input size was set too."""
    for name, model in changed.models.items():
        spec = registry.spec(name)
        overrides.check_variant(name, model.variant)
        old = planned.models[name].variant
        is_unchanged = spec.size_inside(model.variant) == spec.size_inside(old) or context.protocol == "benchmark"
        if is_unchanged or f"models.{name}.input_size" in changed.overrides:
            continue
        reason = f"the variant {model.variant} was set, which works at another size than {old}"
        changed = overrides.with_input_size(changed, name, admissible_size(spec, model.variant, context.spatial_plan), reason)
    return changed


def _remeasure(planned: Plan, changed: Plan, context: _Context) -> Plan:
    """Measures the models with changed settings again, and splits their batch into parts that fit."""
    models = dict(changed.models)
    for name, model in changed.models.items():
        old, optimizer = planned.models[name], changed.training.optimizer
        is_unchanged = all(getattr(model, field) == getattr(old, field) for field in _MEMORY_FIELDS)
        if is_unchanged and optimizer == planned.training.optimizer:
            continue
        request = replace(context.request(registry.spec(name), model.precision, model.batch_size), optimizer=optimizer)
        accumulate = model.accumulate if f"models.{name}.accumulate" in changed.overrides else None
        request = replace(request, frozen=model.encoder_rate == 0)
        fit = fit_part(request, model.variant, model.input_size, model.options, accumulate)
        if not fit.fits:
            _warn_over_budget(name, fit, context.budget)
        if request.spec.batch_statistics and model.batch_size == fit.accumulate:
            logger.warning(f"{name} uses batch statistics, and now has one image in each part: its statistics will be noise")
        models[name] = replace(
            model,
            accumulate=fit.accumulate,
            parameters=fit.measured.trainable // 4,
            flops=flops_of(request, model.variant, model.input_size, model.options),
            memory=fit.memory,
        )
    return replace(changed, models=models)


def _decide_batches_held(plan: Plan) -> Decision:
    """Which models fit the complete batch at once, in parts, or not at all."""
    fits = {name: holds(plan.memory_budget, model.memory) for name, model in plan.models.items()}
    in_parts = [
        f"{name} {model.accumulate} x {model.batch_size // model.accumulate}"
        for name, model in plan.models.items()
        if fits[name] and model.accumulate > 1
    ]
    too_large = [f"{name} ({show_memory(model.memory)})" for name, model in plan.models.items() if not fits[name]]
    at_once = sum(fits.values()) - len(in_parts)
    value = f"{at_once} models at once, {len(in_parts)} in parts, {len(too_large)} not at all"
    reason = f"within {show_memory(plan.memory_budget)}"
    if in_parts:
        reason += f"; gradients are accumulated over the parts, so a step still uses the complete batch: {', '.join(in_parts)}"
    if too_large:
        reason += f"; the smallest part is too large for {', '.join(too_large)}: those need more --memory"
    return Decision("batches_held", value, reason)


def _specs(protocol: Protocol, models: Sequence[str]) -> list[ModelSpec]:
    if protocol not in PROTOCOLS:
        raise AutosegError(f"there is no protocol {protocol!r}", f"choose one of {', '.join(PROTOCOLS)}")
    if not models:
        raise AutosegError("no model was named", f"known: {', '.join(registry.names())}")
    return [registry.spec(name) for name in dict.fromkeys(models)]


@dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """The settings with short names, None where the user set none; see `overrides.AT_PLANNING`."""

    geometry: Asked | None
    side: int | None
    normalisation: normalisation.Kind | None
    augmentation: augmentation.Kind | None


def planning_settings(settings: Mapping[str, str]) -> PlanningSettings:
    """The settings with short names. Raises AutosegError for other values."""
    side = settings.get(overrides.SIDE)
    if side is not None and not (side.isdigit() and 32 <= int(side) <= 8192 and int(side) % 32 == 0):
        raise AutosegError(f"side cannot be {side!r}", "give a multiple of 32, such as 256")
    choices: dict[str, tuple[str, ...]] = {
        overrides.GEOMETRY: get_args(Asked),
        overrides.NORMALISATION: normalisation.KINDS,
        overrides.AUGMENTATION: augmentation.KINDS,
    }
    for name, known in choices.items():
        if settings.get(name, known[0]) not in known:
            raise AutosegError(f"{name} cannot be {settings[name]!r}", f"choose {', '.join(known[:-1])} or {known[-1]}")
    chosen: dict[str, Any] = {name: settings.get(name) for name in choices}
    return PlanningSettings(side=None if side is None else int(side), **chosen)


def all_full_resolution(models: Iterable[str]) -> bool:
    """Whether no network of a plan needs enlarged patches of thin structures."""
    return all(registry.spec(name).full_resolution for name in models)


def planned_stats(
    fingerprint: Fingerprint, spec: DatasetSpec, protocol: Protocol, settings: Mapping[str, str], splits: Splits | None
) -> tuple[Duplicates, DatasetStats]:
    """What the protocol does with duplicates, and the statistics of the cases that are in the folds. splits: of the user."""
    if splits is not None and "training.duplicates" in settings:
        raise AutosegError("training.duplicates cannot be set, because the folds were given", "leave it out, or --splits")
    planned: Duplicates = "removed" if protocol == "benchmark" and splits is None else "grouped"
    removes = splits is None and settings.get("training.duplicates", planned) == "removed"
    left_out = len(duplicates_to_remove(fingerprint, spec)) if removes else 0
    return planned, dataset_stats(fingerprint, spec, FOLDS, splits, left_out)


def _warn_over_budget(model: str, fit: MemoryFit, budget: int) -> None:
    logger.warning(
        f"{model} takes {show_memory(fit.memory)} for the smallest part of a batch, the budget is {show_memory(budget)}: "
        f"plan with more --memory, or remove it from --models"
    )
