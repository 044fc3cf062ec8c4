"""What decides the weights of a run. A run is resumed only where all of it is the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Fold, ModelPlan, Plan
from autoseg.support.files import hash_text

# Raised whenever the same plan would lead to other weights: other draws, another order of computing.
_VERSION = "1"
# Fields that say something of a plan without deciding the weights of this run.
_ASIDE_TRAINING = ("learning_rates", "folds", "search_epochs")
# Fields that came later, with the value that means what was done before there were any: runs from then can go on.
_LATER_TRAINING = {"cldice": 0.0}
# The memory format decides no more than rounding, and a checkpoint holds its own (see `memory_format`).
_ASIDE_MODEL = ("parameters", "flops", "memory", "pretrained", "memory_format")


def config_hash(plan: Plan, model_plan: ModelPlan, scheme: LabelScheme, split: Fold, pretrained: str) -> dict[str, str]:
    """Part -> its content as text. pretrained: hash of the file the weights are filled from, "" for random ones."""
    training = asdict(plan.training)
    unchanged = tuple(name for name, value in _LATER_TRAINING.items() if training[name] == value)
    # Part and field are called as in version 1 of plan.json, so that runs of that time can be resumed.
    preparation = plan.preprocessing[model_plan.preprocessing].hashed()
    model = _without(asdict(model_plan), (*_ASIDE_MODEL, "preprocessing"))
    parts: dict[str, Any] = {
        "training": _without(training, (*_ASIDE_TRAINING, *unchanged)),
        "model": {**model, "preparation": preparation["key"]},
        "preparation": preparation,
        "labels": asdict(scheme),
        "training cases": split.train,
        "validation cases": split.validation,
        "prepared data": plan.content_hash,
        "pretrained weights": pretrained,
        "version of the training loop": _VERSION,
    }
    return {name: json.dumps(content, sort_keys=True) for name, content in parts.items()}


def digest(parts: dict[str, str]) -> str:
    """One hash of all parts."""
    return hash_text(*(text for name in sorted(parts) for text in (name, parts[name])))


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, a line each, with both values where they are short."""
    lines = []
    for name in now:
        if before.get(name) == now[name]:
            continue
        old, new = (json.loads(parts[name]) if name in parts else None for parts in (before, now))
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            lines += [f"{name}.{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in changed]
        elif isinstance(old, list) and isinstance(new, list):
            lines.append(f"{name}: {len(set(old) - set(new))} left, {len(set(new) - set(old))} came")
        else:
            lines.append(f"{name}: {_short(old)} -> {_short(new)}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _without(content: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in names}
