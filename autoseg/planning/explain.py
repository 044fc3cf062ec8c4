"""A plan's decisions as rows of a table."""

from __future__ import annotations

from dataclasses import replace

from autoseg.schema.plan import Decision, Plan

_PREFIX = "models."


def explain(plan: Plan) -> list[Decision]:
    """The dataset's decisions, then the models'. Models with equal value and reason share a row, with a subject such as
    "models.{nnunet, unet}.precision" or "models.all.precision"."""
    rows = []
    for decision, models in grouped(plan):
        name = models[0] if len(models) == 1 else "{" + ", ".join(models) + "}"
        name = "all" if len(models) == len(plan.models) > 1 else name
        rows.append(replace(decision, subject=f"{_PREFIX}{name}.{decision.subject}") if models else decision)
    return rows


def grouped(plan: Plan) -> list[tuple[Decision, list[str]]]:
    """The same decisions with the models they are for, none for the dataset's; the subject of a model's is its field."""
    general: list[tuple[Decision, list[str]]] = []
    shared: dict[Decision, list[str]] = {}
    for decision in plan.decisions:
        model = _model_of(decision.subject, plan)
        if model is None:
            general.append((decision, []))
        else:
            field = decision.subject.removeprefix(f"{_PREFIX}{model}.")
            shared.setdefault(replace(decision, subject=field), []).append(model)
    fields = list(dict.fromkeys(decision.subject for decision in shared))
    return general + sorted(shared.items(), key=lambda item: fields.index(item[0].subject))


def _model_of(subject: str, plan: Plan) -> str | None:
    """The model a subject belongs to. Names of models may contain dots, so the longest matching one counts."""
    return max((name for name in plan.models if subject.startswith(f"{_PREFIX}{name}.")), key=len, default=None)
