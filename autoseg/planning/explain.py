"""A plan's decisions as rows of a table."""

from __future__ import annotations

from autoseg.schema.plan import Decision, Plan


def explain(plan: Plan) -> list[Decision]:
    """The dataset's decisions, then the models'. Models with equal value and reason share a row, with a subject such as
    "models.{nnunet, unet}.precision" or "models.all.precision"."""
    general = [decision for decision in plan.decisions if not decision.subject.startswith("models.")]
    shared: dict[tuple[str, str, str, str], list[str]] = {}
    for decision in plan.decisions:
        if decision.subject.startswith("models."):
            _, model, field = decision.subject.split(".", 2)
            shared.setdefault((field, decision.value, decision.reason, decision.source), []).append(model)
    fields = list(dict.fromkeys(field for field, *_ in shared))
    rows = list(general)
    for current in fields:
        for (field, value, reason, source), models in shared.items():
            if field == current:
                model_names = models[0] if len(models) == 1 else "{" + ", ".join(models) + "}"
                if len(models) == len(plan.models) > 1:
                    model_names = "all"
                rows.append(Decision(f"models.{model_names}.{field}", value, reason, source))
    return rows
