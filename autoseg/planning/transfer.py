"""How networks whose encoder starts from published weights are trained: rates of the encoder and its layers, decay, warm-up."""

from __future__ import annotations

from autoseg.models.base import LIKE_ANY_OTHER, ModelSpec, Transfer
from autoseg.planning.training_schedule import FEW_STEPS
from autoseg.schema.plan import Decision, Protocol


def decide_transfer(
    model: ModelSpec, protocol: Protocol, steps: int, pretrained: bool
) -> tuple[Transfer, list[Decision]]:
    """The settings for a model, with reasons; without any for models that are trained like any other.

    steps: of the training. pretrained: it starts from published weights.
    """
    planned = model.transfer
    if planned == LIKE_ANY_OTHER:
        return planned, []
    if protocol == "benchmark":
        return LIKE_ANY_OTHER, _decisions(model, LIKE_ANY_OTHER, "the study's protocol trains all parts of a network alike")
    if not pretrained:
        return LIKE_ANY_OTHER, _decisions(model, LIKE_ANY_OTHER, "random weights: there is nothing to keep")
    if steps > FEW_STEPS or not planned.drop_path:
        return planned, _decisions(model, planned, planned.source)
    chosen = Transfer(**{**vars(planned), "drop_path": 0.0})
    return chosen, _decisions(model, chosen, planned.source, f"{steps} steps are too few to need stochastic depth")


def options_of(transfer: Transfer) -> dict[str, float]:
    """The options of the model's builder."""
    return {"drop_path": transfer.drop_path} if transfer.drop_path else {}


def _decisions(model: ModelSpec, chosen: Transfer, reason: str, drop_path_reason: str = "") -> list[Decision]:
    values = {
        "encoder_rate": f"{chosen.encoder_rate:g}",
        "layer_decay": f"{chosen.layer_decay:g}",
        "weight_decay": "training.weight_decay" if chosen.weight_decay is None else f"{chosen.weight_decay:g}",
        "warmup_share": f"{chosen.warmup_share:g}",
    }
    decisions = [Decision(f"models.{model.name}.{field}", value, reason) for field, value in values.items()]
    if model.transfer.drop_path:
        subject = f"models.{model.name}.options.drop_path"
        decisions.append(Decision(subject, f"{chosen.drop_path:g}", drop_path_reason or reason))
    return decisions
