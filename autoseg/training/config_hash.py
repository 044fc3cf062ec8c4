"""Everything that determines the weights of a run. A run is resumed only if all of it is the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Fold, ModelPlan, Plan
from autoseg.support.files import hash_text

# Increase it when the same plan would give other weights, e.g. by other random numbers.
_VERSION = "1"
# Fields that do not influence the weights of this run.
_EXCLUDED_TRAINING = ("learning_rates", "folds", "search_epochs", "duplicates")
# Fields added later, with the value that means the old behaviour, so that older runs can be resumed.
_ADDED_TRAINING = {
    "cldice": 0.0, "compile": False, "selection": "held_out", "monitor": "class_mean.dice", "min_delta": 0.0,
    "auxiliary_losses": True, "scored_size": "original", "tta": False,
}  # fmt: skip
_ADDED_MODEL = {"encoder_rate": 1.0, "layer_decay": 1.0, "weight_decay": None, "warmup_share": 0.0, "cached_views": 0}
_ADDED_AUGMENTATION = {
    "p_shear": 0.0, "shear": 0.0, "p_shift": 0.0, "shift": 0.0, "p_colour": 0.0, "hue": 20.0, "saturation": (0.6, 1.4),
    "tint": 0.1, "p_bias": 0.0, "bias": 0.3, "p_sharpen": 0.0, "sharpen": (0.5, 1.5), "p_jpeg": 0.0, "jpeg": (30.0, 90.0),
}  # fmt: skip
# What it means that a part is not there.
_ABSENT = {"deterministic": False}
# The memory format only changes rounding, and the checkpoint stores it (see `memory_format`). Times change nothing.
_EXCLUDED_MODEL = ("parameters", "flops", "memory", "pretrained", "memory_format", "timing")


def config_hash(
    plan: Plan, model_plan: ModelPlan, scheme: LabelScheme, split: Fold, pretrained: str, deterministic: bool = False
) -> dict[str, str]:
    """Part -> its content as JSON text. pretrained: hash of the pretrained weights file, "" for random weights."""
    training = asdict(plan.training)
    unchanged = tuple(name for name, value in _ADDED_TRAINING.items() if training[name] == value)
    augmentation = training["augmentation"]
    training["augmentation"] = _without(
        augmentation, tuple(name for name, value in _ADDED_AUGMENTATION.items() if augmentation[name] == value)
    )
    # Parts and fields keep the names of plan.json version 1, so that older runs can be resumed.
    preprocessing = plan.preprocessing[model_plan.preprocessing].hashed()
    chosen = asdict(model_plan)
    as_before = tuple(name for name, value in _ADDED_MODEL.items() if chosen[name] == value)
    model = _without(chosen, (*_EXCLUDED_MODEL, "preprocessing", *as_before))
    parts: dict[str, Any] = {
        "training": _without(training, (*_EXCLUDED_TRAINING, *unchanged)),
        "model": {**model, "preparation": preprocessing["key"]},
        "preparation": preprocessing,
        "labels": asdict(scheme),
        "training cases": split.train,
        "validation cases": split.validation,
        "prepared data": plan.content_hash,
        "pretrained weights": pretrained,
        "version of the training loop": _VERSION,
    }
    # Only then, so that runs of older releases can be resumed.
    parts |= {"deterministic": True} if deterministic else {}
    return {name: json.dumps(content, sort_keys=True) for name, content in parts.items()}


def digest(parts: dict[str, str]) -> str:
    """One hash of all parts."""
    return hash_text(*(text for name in sorted(parts) for text in (name, parts[name])))


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """One line per difference, with both values."""
    lines = []
    for name in {**now, **before}:
        if before.get(name) == now.get(name):
            continue
        old, new = (json.loads(parts[name]) if name in parts else _ABSENT.get(name) for parts in (before, now))
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            lines += [f"{name}.{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in changed]
        elif isinstance(old, list) and isinstance(new, list):
            lines.append(f"{name}: {len(set(old) - set(new))} removed, {len(set(new) - set(old))} added")
        else:
            lines.append(f"{name}: {_short(old)} -> {_short(new)}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _without(content: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in names}
