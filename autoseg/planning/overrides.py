"""`--set training.epochs=50`: sets a field of a plan by its dotted path, checks its type and records it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoseg.models import registry
from autoseg.schema import serde
from autoseg.schema.plan import CHOOSING, Decision, ModelPlan, Normalisation, Plan, PreprocessingConfig, Training
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULES
from autoseg.support.registry import Registry

# Settings of the planner itself, with short names (see planner).
GEOMETRY, SIDE, NORMALISATION, AUGMENTATION = "geometry", "side", "normalisation", "augmentation"
AT_PLANNING = (GEOMETRY, SIDE, NORMALISATION, AUGMENTATION)
# Measured or derived fields, which cannot be set.
_DERIVED = {
    "dataset", "protocol", "content_hash", "decisions", "overrides", "memory", "flops", "parameters", "timing", "model", "key",
}  # fmt: skip
_POSITIVE = {
    "epochs",
    "batch_size",
    "accumulate",
    "learning_rate",
    "learning_rates",
    "validate_every",
    "scale",
    "size",
    "input_size",
}
# Fields that are set by another option or file.
_SET_BY_OPTION = {
    "time_budget": "autoseg_plan_and_preprocess ... --hours 4",
    "licence": "autoseg_plan_and_preprocess ... --licence commercial",
    "memory_budget": "autoseg_plan_and_preprocess ... --memory 8G",
    "device": "autoseg_plan_and_preprocess ... --device cuda",
    "channels": "name the channels of the files in dataset.json",
}
_CHECKED_LAST = ("training.selection", ".cached_views")
SET_BY_USER = "set by the user"
# Fields that name an entry of a registry, which packages may extend.
_REGISTRIES: dict[str, Registry[Any]] = {
    "training.loss": LOSSES,
    "training.optimizer": OPTIMIZERS,
    "training.schedule": SCHEDULES,
    "training.augmentation.chain": AUGMENTATIONS,
}


def apply_overrides(plan: Plan, settings: Mapping[str, str]) -> Plan:
    """The plan with each dotted field set to the parsed text ("50", "0.001", "256x256", "[0,1]", "none").

    Dependent fields follow: accumulation steps for a new batch size, preprocessing for a new input size; search epochs,
    the interval of validations and warm-up for new epochs; the selection of weights for patience. Raises AutosegError for an
    unknown field, with the nearest names, and for a value of the wrong type or range.
    """
    refuse_at_planning(settings)
    # Last what must fit another setting, in whatever order: the patience, the frozen encoder.
    for path, text in sorted(settings.items(), key=lambda item: item[0].endswith(_CHECKED_LAST)):
        changed = _apply_consequences(_with_value(plan, path, text), path)
        plan = _scale_to_epochs(plan, changed) if path == "training.epochs" else changed
        problem = next(plan.problems(), "")
        if problem:
            raise AutosegError(f"{path} cannot be {text!r}: {problem}", "give a value that fits the rest of the plan")
    return plan


def refuse_at_planning(settings: Mapping[str, str]) -> None:
    """Raises AutosegError for settings that a plan must be made with."""
    for path in AT_PLANNING:
        if path in settings:
            raise AutosegError(
                f"{path} is a setting of the plan of all models, so it cannot be set for a single training",
                f"autoseg_plan_and_preprocess ... --set {path}={settings[path]}",
            )


def check_settings(settings: Mapping[str, str], models: Sequence[str]) -> None:
    """Check names, types and ranges before there is a plan of the models.

    Raises AutosegError as `apply_overrides` does. The stored arrays (`preprocessing`) are checked with the plan.
    """
    template = _template(models)
    for path, text in settings.items():
        if path in AT_PLANNING or path.startswith("preprocessing."):
            continue
        changed = _with_value(template, path, text)
        keys = split_path(path, template.models)
        if keys[0] == "models" and keys[2:] == ["variant"]:
            check_variant(keys[1], changed.models[keys[1]].variant)


def check_variant(model: str, variant: str) -> None:
    """Raises AutosegError with the existing variants."""
    variants = [one.name for one in registry.spec(model).variants]
    if variant not in variants:
        raise AutosegError(f"models.{model}.variant cannot be {variant!r}", f"choose one of: {', '.join(variants)}")


def _template(models: Sequence[str]) -> Plan:
    """A plan with every field, whose values mean nothing."""
    model = ModelPlan(
        model="any", variant="", input_size=(32, 32), batch_size=1, accumulate=1, precision="fp32", pretrained="none",
        learning_rate=1.0, warmup_epochs=0, normalisation=Normalisation(scheme="image"), preprocessing="", parameters=0,
        flops=0, memory=0,
    )  # fmt: skip
    training = Training(epochs=1, loss="dice_ce", learning_rates=(1.0,))
    return Plan(
        dataset="none", protocol="auto", content_hash="", memory_budget=0, device="", channels=1, training=training,
        preprocessing={}, models=dict.fromkeys(models, model), decisions=(),
    )  # fmt: skip


def check_names(plan: Plan, source: str) -> None:
    """Checks that all registry names of a plan exist. source: its file. Raises AutosegError with the nearest names."""
    for path in _REGISTRIES:
        value: Any = plan
        for key in path.split("."):
            value = getattr(value, key)
        _check_name(path, value, f"{source}: {path}: ")


def _check_name(path: str, name: str, old_value: str) -> None:
    try:
        _REGISTRIES[path].check(name)
    except AutosegError as error:
        raise AutosegError(old_value + error.problem, error.remedy) from error


def record(plan: Plan, path: str, value: Any, planned: str = "") -> Plan:
    """The plan with an override recorded in `overrides` and `decisions`."""
    reason = f"{SET_BY_USER}; planned was {planned}" if planned else SET_BY_USER
    plan = with_decision(plan, Decision(path, _format(value), reason))
    return replace(plan, overrides={**plan.overrides, path: _to_json(value)})


def with_decision(plan: Plan, decision: Decision) -> Plan:
    """The plan with a decision that replaces the one on the same subject, or is appended."""
    others = [other for other in plan.decisions if other.subject != decision.subject]
    index = next((n for n, other in enumerate(plan.decisions) if other.subject == decision.subject), len(others))
    others.insert(index, decision)
    return replace(plan, decisions=tuple(others))


def split_path(path: str, models: Iterable[str]) -> list[str]:
    """The keys of a dotted path. Names of models may hold dots themselves: the longest name that matches is one key."""
    head, _, rest = path.partition(".")
    named = [model for model in models if head == "models" and (rest == model or rest.startswith(f"{model}."))]
    if not named:
        return path.split(".")
    model = max(named, key=len)
    return [head, model, *rest[len(model) + 1 :].split(".")] if rest != model else [head, model]


def _with_value(plan: Plan, path: str, text: str) -> Plan:
    keys = split_path(path, plan.models)
    old_value = _find(plan, keys, path)
    content = dataclasses.asdict(plan)
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    error_text = ""
    for value in _parse_candidates(text):
        parent[keys[-1]] = value
        try:
            changed = serde.from_dict(content, Plan)
        except serde.SchemaError as error:
            numbers = value if isinstance(value, list) else [value]
            if isinstance(value, list) == isinstance(old_value, tuple) and all(type(one) in (int, float) for one in numbers):
                _check_range(keys[-1], tuple(numbers) if isinstance(value, list) else value, path, text)
            error_text = error_text or str(error)
            continue
        new_value = _find(changed, keys, path)
        if isinstance(new_value, bool) != isinstance(old_value, bool) and old_value is not None:
            continue
        _check_range(keys[-1], new_value, path, text)
        if path in _REGISTRIES:
            _check_name(path, new_value, f"{path} cannot be {text!r}: ")
        planned = plan.overrides.get(path, old_value)
        already_set = path in plan.overrides
        return record(changed, path, new_value, "" if already_set else _format(planned))
    raise AutosegError(
        f"{path} cannot be {text!r}: {error_text}", f"it is {_format(old_value)} now: give a value of the same type"
    )


def _find(plan: Plan, keys: list[str], path: str) -> Any:
    """The value at a path. Raises AutosegError with the nearest fields if there is none."""
    value: Any = plan
    for depth, key in enumerate(keys):
        fields = _fields(value)
        is_option = depth > 0 and keys[depth - 1] == "options"
        if (key not in fields and not is_option) or key in _DERIVED or (key in _SET_BY_OPTION and not is_option):
            _raise_unknown_field(plan, path, keys)
        value = fields.get(key)
    if dataclasses.is_dataclass(value) or (isinstance(value, dict) and keys[-1] != "options"):
        choices = ", ".join(f"{path}.{key}" for key in _fields(value) if key not in _DERIVED)
        raise AutosegError(f"{path} is not a single value", f"set one of: {choices}")
    return value


def _raise_unknown_field(plan: Plan, path: str, keys: list[str]) -> None:
    if keys[-1] in _SET_BY_OPTION:
        raise AutosegError(f"{path} cannot be set with --set", _SET_BY_OPTION[keys[-1]])
    if keys[-1] in _DERIVED and len(keys) <= 3:
        raise AutosegError(f"{path} is derived from other fields and cannot be set", "set the fields it depends on")
    fields = [*AT_PLANNING, *_paths(plan)]
    same_name = [name for name in fields if name.split(".")[-1] == keys[-1]]
    similar = same_name[:3] or difflib.get_close_matches(path, fields, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"known: {', '.join(fields)}"
    raise AutosegError(f"a plan has no field {path!r}", hint)


def _paths(value: Any, prefix: str = "") -> Iterator[str]:
    for key, inner in _fields(value).items():
        if key in _DERIVED or key in _SET_BY_OPTION:
            continue
        if dataclasses.is_dataclass(inner) or (isinstance(inner, dict) and inner):
            yield from _paths(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value if isinstance(value, dict) else {}


def _parse_candidates(text: str) -> Iterator[Any]:
    """Possible values of a text, most likely first."""
    text = text.strip()
    for candidate in (text, f"[{text}]", "[" + text.lower().replace("x", ",") + "]", text.lower()):
        try:
            value = json.loads(candidate)
        except json.JSONDecodeError:
            continue
        if not (isinstance(value, float) and not math.isfinite(value)):
            yield value
    yield text
    # Last, because "none" may also be a string value.
    if text.lower() in ("none", "null"):
        yield None


def _check_range(field: str, value: Any, path: str, text: str) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    if field in _POSITIVE and any(number is not None and number <= 0 for number in numbers):
        raise AutosegError(f"{path} cannot be {text!r}", "give a value above zero")
    if (field.startswith("p_") or field == "foreground_share") and not 0 <= value <= 1:
        raise AutosegError(f"{path} cannot be {text!r}", "it is a fraction: give a value from 0 to 1")
    if field in ("cldice", "search_epochs") and value < 0:
        raise AutosegError(f"{path} cannot be {text!r}", "give 0 (for none) or more")
    if field == "folds" and value < 2:
        raise AutosegError(f"{path} cannot be {text!r}", "cross-validation needs at least 2 folds")
    if field == "mirror" and not set(value) <= {0, 1}:
        raise AutosegError(f"{path} cannot be {text!r}", "axes are 0 (up-down) and 1 (left-right); [] for none")


def _apply_consequences(plan: Plan, path: str) -> Plan:
    """Updates fields that depend on a changed field: accumulation steps, preprocessing, selection of weights, decay."""
    keys = split_path(path, plan.models)
    if path == "training.weight_decay":
        return _with_one_decay(plan)
    if path == "training.patience" and "training.selection" not in plan.overrides:
        return _with_choosing_selection(plan)
    if keys[0] != "models" or len(keys) < 3:
        return plan
    model = plan.models[keys[1]]
    if keys[2] == "batch_size" and model.batch_size % model.accumulate:
        # Parts not larger than before, so that they fit the memory.
        divisors = (parts for parts in range(model.accumulate, model.batch_size) if model.batch_size % parts == 0)
        model = replace(model, accumulate=next(divisors, model.batch_size))
    if keys[2] == "accumulate" and model.batch_size % model.accumulate:
        raise AutosegError(
            f"{path} cannot be {model.accumulate}: a batch of {model.batch_size} cannot be divided into as many equal parts",
            "choose a divisor of the batch size",
        )
    configs = dict(plan.preprocessing)
    old = configs[model.preprocessing]
    if keys[2] == "input_size" and old.geometry == "resize" and old.size != model.input_size:
        new = with_resize_shape(old, model.input_size)
        configs.setdefault(new.key, new)
        model = replace(model, preprocessing=new.key)
    models = {**plan.models, keys[1]: model}
    used_keys = {model_plan.preprocessing for model_plan in models.values()}
    return replace(plan, models=models, preprocessing={key: config for key, config in configs.items() if key in used_keys})


def _with_one_decay(plan: Plan) -> Plan:
    """The weight decay that was set for all models, except where it was set for one."""
    for name, model in plan.models.items():
        path = f"models.{name}.weight_decay"
        if model.weight_decay is not None and path not in plan.overrides:
            plan = replace(plan, models={**plan.models, name: replace(model, weight_decay=None)})
            plan = with_decision(plan, Decision(path, "training.weight_decay", f"training.weight_decay was {SET_BY_USER}"))
    return plan


def _with_choosing_selection(plan: Plan) -> Plan:
    """Patience stops by the Dice of validations, so the weights are those of the best one, on cases that are not scored."""
    training = plan.training
    if not training.patience or training.selection in CHOOSING:
        return plan
    reason = f"patience ({training.patience}) needs a validation that chooses; the scored cases stay unseen"
    changed = replace(plan, training=replace(training, selection="inner"))
    return with_decision(changed, Decision("training.selection", "inner", reason))


def _scale_to_epochs(old_value: Plan, plan: Plan) -> Plan:
    """The fields that were chosen for a number of epochs, for the new number: as many validations, the same shares."""
    old, training = old_value.training, plan.training
    if old.search_epochs and "training.search_epochs" not in plan.overrides:
        training = replace(training, search_epochs=max(1, round(old.search_epochs * training.epochs / old.epochs)))
    if "training.validate_every" not in plan.overrides:
        interval = max(1, old.validate_every * training.epochs // old.epochs)
        # Patience counts validations, so those do not become rarer.
        interval = min(interval, old.validate_every) if training.patience else interval
        training = replace(training, validate_every=interval)
    models = {
        name: model
        if f"models.{name}.warmup_epochs" in plan.overrides
        else replace(model, warmup_epochs=min(model.warmup_epochs, max_warmup(training.epochs)))
        for name, model in plan.models.items()
    }
    return replace(plan, training=training, models=models)


def max_warmup(epochs: int) -> int:
    """Most epochs of warm-up in a training of so many."""
    return epochs // 10


def with_input_size(plan: Plan, model: str, size: tuple[int, int], reason: str) -> Plan:
    """The plan with a new input size of a model, for a reason other than a setting, and its preprocessing."""
    path = f"models.{model}.input_size"
    changed = replace(plan, models={**plan.models, model: replace(plan.models[model], input_size=size)})
    return _apply_consequences(with_decision(changed, Decision(path, f"{size[0]}x{size[1]}", reason)), path)


def with_resize_shape(config: PreprocessingConfig, size: tuple[int, int]) -> PreprocessingConfig:
    """The same configuration with another size (height, width)."""
    return replace(config, size=size, key=f"{'pad' if config.pad else 'resize'}_{size[0]}x{size[1]}")


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_format(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _to_json(value: Any) -> Any:
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value
