"""How networks whose encoder starts from published weights are trained: rates of the encoder and its layers, decay, warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from autoseg.models import registry
from autoseg.models.base import LIKE_ANY_OTHER, ModelSpec, Transfer
from autoseg.planning.initial_weights import WeightsPolicy
from autoseg.planning.training_schedule import FEW_STEPS, SHORT_STEPS
from autoseg.schema.plan import Decision, Plan, Protocol
from autoseg.weights.pretrained import AUTO, find_start

# Fields with which a user says how an encoder is trained.
_OF_ENCODER = ("encoder_rate", "layer_decay", "cached_views")


def freezable(plan: Plan, policy: WeightsPolicy) -> Iterator[str]:
    """The models whose encoder is frozen if the time is short (`SHORT_STEPS`): plain transformers whose published weights are
    present. What the user set stays."""
    for name, model in plan.models.items():
        spec = registry.spec(name)
        is_set = any(f"models.{name}.{field}" in plan.overrides for field in _OF_ENCODER)
        if plan.protocol == "auto" and spec.transfer.layer_decay < 1 and not is_set and model.pretrained == AUTO:
            start = find_start(spec, model.variant, policy.folder, commercial=policy.commercial)
            if start.source is not None and not start.missing:
                yield name


def decide_transfer(
    model: ModelSpec, protocol: Protocol, steps: int, pretrained: bool, views: int = 0
) -> tuple[Transfer, list[Decision]]:
    """The settings for a model, with reasons; without any for models that are trained like any other.

    steps: of the training. pretrained: it starts from published weights. views: of each image that its encoder sees once; then
    it is frozen.
    """
    planned = model.transfer
    if planned == LIKE_ANY_OTHER:
        return planned, []
    if protocol == "benchmark":
        return LIKE_ANY_OTHER, _decisions(model, LIKE_ANY_OTHER, "the study's protocol trains all parts of a network alike")
    if not pretrained:
        return LIKE_ANY_OTHER, _decisions(model, LIKE_ANY_OTHER, "random weights: there is nothing to keep")
    if views:
        frozen = replace(planned, encoder_rate=0.0, drop_path=0.0)
        return frozen, [
            *_decisions(
                model, frozen, planned.source, "nothing is dropped in a frozen encoder",
                f"not even {SHORT_STEPS} steps of the whole network fit the time, so the encoder is frozen",
            ),
            Decision(
                f"models.{model.name}.cached_views", str(views),
                "the frozen encoder sees so many views of each image once, before the training; the limit includes this time",
            ),
        ]  # fmt: skip
    if steps > FEW_STEPS or not planned.drop_path:
        return planned, _decisions(model, planned, planned.source)
    chosen = replace(planned, drop_path=0.0)
    return chosen, _decisions(model, chosen, planned.source, f"{steps} steps are too few to need stochastic depth")


def options_of(transfer: Transfer) -> dict[str, float]:
    """The options of the model's builder."""
    return {"drop_path": transfer.drop_path} if transfer.drop_path else {}


def _decisions(
    model: ModelSpec, chosen: Transfer, reason: str, drop_path_reason: str = "", rate_reason: str = ""
) -> list[Decision]:
    values = {
        "encoder_rate": f"{chosen.encoder_rate:g}",
        "layer_decay": f"{chosen.layer_decay:g}",
        "weight_decay": "training.weight_decay" if chosen.weight_decay is None else f"{chosen.weight_decay:g}",
        "warmup_share": f"{chosen.warmup_share:g}",
    }
    reasons = {"encoder_rate": rate_reason or reason}
    decisions = [Decision(f"models.{model.name}.{field}", value, reasons.get(field, reason)) for field, value in values.items()]
    if model.transfer.drop_path:
        subject = f"models.{model.name}.options.drop_path"
        decisions.append(Decision(subject, f"{chosen.drop_path:g}", drop_path_reason or reason))
    return decisions
