"""The weights that a run starts from, by its plan: found, required where the protocol does, and recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from autoseg.models import registry
from autoseg.models.published_weights import PublishedWeights
from autoseg.planning.normalisation import constants_of
from autoseg.schema.plan import ModelPlan, Plan
from autoseg.schema.run import InitialWeights
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Dataset, Workspace
from autoseg.weights.pretrained import AUTO, STUDY, WeightsSource, find_start
from autoseg.weights.store import WeightsFolder

logger = logging.getLogger(__name__)


def missing_weights(dataset: Dataset, plan: Plan, models: Iterable[str], pretrained: str | None = None) -> dict[str, str]:
    """Model -> its published weights that are not present, in words. pretrained: instead of the plan's choice."""
    folder, missing = Workspace(dataset.root).weights, {}
    for name in models:
        choice, variant, spec = pretrained or plan.models[name].pretrained, plan.models[name].variant, registry.spec(name)
        if choice in (AUTO, STUDY):
            start = find_start(spec, variant, folder, study=choice == STUDY, commercial=plan.licence == "commercial")
            if start.missing:
                wanted = dict.fromkeys(files[0].trained_on for files in start.missing.values())
                missing[name] = f"{spec.title} {variant}: {' and '.join(wanted)} weights are not present"
    return missing


def require_weights(dataset: Dataset, plan: Plan, models: Iterable[str], pretrained: str | None) -> None:
    """In the protocol benchmark, refuse to start a pretrained model from random weights. Raises SeveralProblems."""
    if plan.protocol != "benchmark":
        return
    missing = missing_weights(dataset, plan, models, pretrained)
    if missing:
        raise SeveralProblems(
            "in the protocol benchmark a pretrained model does not start from random weights:",
            missing.values(),
            f"autoseg_weights fetch --plan {dataset.number}, or start from random weights on purpose: --pretrained none",
        )


def without_transfer(plan: Plan, model: str) -> Plan:
    """The plan for a training from random weights: the encoder learns at the full rate, unless the user set its rate.

    Raises AutosegError for a frozen encoder.
    """
    model_plan = plan.models[model]
    if model_plan.encoder_rate == 0:
        raise AutosegError(
            f"{model} would start from random weights, and its encoder is frozen (models.{model}.encoder_rate is 0)",
            f"autoseg_weights fetch {model}:{model_plan.variant}, or let it learn: --set models.{model}.encoder_rate=1",
        )
    changed = model_plan
    if f"models.{model}.encoder_rate" not in plan.overrides:
        changed = replace(changed, encoder_rate=1.0)
    if f"models.{model}.layer_decay" not in plan.overrides:
        changed = replace(changed, layer_decay=1.0)
    if changed == model_plan:
        return plan
    logger.info(f"{model} starts from random weights: its encoder learns as fast as the rest")
    return replace(plan, models={**plan.models, model: changed})


def record_weights(dataset: Dataset, source: WeightsSource | None) -> tuple[InitialWeights, ...]:
    """What the run's record says of the files: name, hash, licence, and where they came from."""
    folder = WeightsFolder(Workspace(dataset.root).weights)
    files = []
    for number, path in enumerate(source.paths if source is not None else ()):
        assert source is not None
        published = source.published[number] if source.published else None
        record = folder.record(path)
        file = path.relative_to(folder.path).as_posix() if path.is_relative_to(folder.path) else path.name
        origin = record.source if record is not None else ""
        if published is not None and not origin:
            origin = "" if path.is_relative_to(folder.path) else f"package {published.package}"
        files.append(
            InitialWeights(
                file=file,
                sha256=source.hash_of(path),
                licence=published.licence if published is not None else "",
                trained_on=published.trained_on if published is not None else "",
                source=origin,
            )
        )
    return tuple(files)


def warn_other_normalisation(model_plan: ModelPlan, source: WeightsSource | None) -> None:
    """Say it if the plan normalises as for other weights of the model than those that are loaded."""
    spec, planned = registry.spec(model_plan.model), model_plan.normalisation
    known = spec.weights_for(model_plan.variant, study=True)
    if source is None or not source.published or planned not in [constants_of(weights) for weights in known]:
        return
    other = [weights for weights in source.published if constants_of(weights) != planned]
    if other:
        logger.warning(
            f"{model_plan.model}: {other[0].path} was trained with {_numbers(other[0])}, but the plan normalises with other "
            "numbers: plan again to change that"
        )


def _numbers(weights: PublishedWeights) -> str:
    return f"mean {'/'.join(map(str, weights.mean))} and deviation {'/'.join(map(str, weights.std))}"
