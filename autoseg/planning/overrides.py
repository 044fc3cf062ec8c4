"""`--set training.epochs=50`: any field of a plan, by its dotted path, checked against its type and recorded."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from autoseg.schema import serde
from autoseg.schema.plan import Decision, Plan, PreprocessingConfig
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULES
from autoseg.support.registry import Registry

# What the whole plan rests on: set while it is made, by these short names (see planner).
GEOMETRY, SIDE = "geometry", "side"
AT_PLANNING = (GEOMETRY, SIDE)
# Fields that say what was measured or where the plan comes from; they follow from others.
_DERIVED = {"dataset", "protocol", "content_hash", "decisions", "overrides", "memory", "flops", "parameters", "model", "key"}
_POSITIVE = {
    "epochs", "batch_size", "accumulate", "learning_rate", "learning_rates", "validate_every", "scale", "size", "input_size",
}
# Fields that have an option or a file of their own.
_ELSEWHERE = {
    "memory_budget": "autoseg_plan_and_preprocess ... --memory 8G",
    "device": "autoseg_plan_and_preprocess ... --device cuda",
    "channels": "name the channels of the files in dataset.json",
}
_SET = "set by the user"
# Fields that name something a package may add to.
_NAMES: dict[str, Registry[Any]] = {
    "training.loss": LOSSES,
    "training.optimizer": OPTIMIZERS,
    "training.schedule": SCHEDULES,
    "training.augmentation.chain": AUGMENTATIONS,
}


def apply_overrides(plan: Plan, settings: Mapping[str, str]) -> Plan:
    """The plan with each dotted field set to the value its text stands for ("50", "0.001", "256x256", "[0,1]", "none").

    A model's batch is cut into parts as large as before; a model that sees whole images gets a store of its new input
    size; a search for the learning rate keeps its share of the epochs. Raises AutosegError for an unknown field, naming
    the nearest, and for a value of the wrong type or range.
    """
    for path, text in settings.items():
        if path in AT_PLANNING:
            raise AutosegError(
                f"{path} decides how images are prepared, so it cannot be set for a single training",
                f"autoseg_plan_and_preprocess ... --set {path}={text}",
            )
        changed = _settled(_with_value(plan, path, text), path)
        plan = _searched_in_proportion(plan, changed) if path == "training.epochs" else changed
    return plan


def check_names(plan: Plan, where: str) -> None:
    """Whether all that a plan names is there. where: its file. Raises AutosegError with the field and the nearest names."""
    for path in _NAMES:
        value: Any = plan
        for key in path.split("."):
            value = getattr(value, key)
        _check_name(path, value, f"{where}: {path}: ")


def _check_name(path: str, name: str, before: str) -> None:
    try:
        _NAMES[path].check(name)
    except AutosegError as error:
        raise AutosegError(before + error.problem, error.remedy) from error


def record(plan: Plan, path: str, value: Any, planned: str = "") -> Plan:
    """The plan with an override noted, in `overrides` and among the decisions."""
    because = f"{_SET}; planned was {planned}" if planned else _SET
    plan = with_decision(plan, Decision(path, _show(value), because))
    return replace(plan, overrides={**plan.overrides, path: _plain(value)})


def with_decision(plan: Plan, said: Decision) -> Plan:
    """The plan with a decision in the place of the one on the same subject, or at the end."""
    kept = [decision for decision in plan.decisions if decision.subject != said.subject]
    place = next((n for n, decision in enumerate(plan.decisions) if decision.subject == said.subject), len(kept))
    kept.insert(place, said)
    return replace(plan, decisions=tuple(kept))


def _with_value(plan: Plan, path: str, text: str) -> Plan:
    keys = path.split(".")
    before = _find(plan, keys, path)
    content = dataclasses.asdict(plan)
    holder = content
    for key in keys[:-1]:
        holder = holder[key]
    fault = ""
    for value in _readings(text):
        holder[keys[-1]] = value
        try:
            changed = serde.from_dict(content, Plan)
        except serde.SchemaError as error:
            fault = fault or str(error)
            continue
        found = _find(changed, keys, path)
        if isinstance(found, bool) != isinstance(before, bool) and before is not None:
            continue
        _check_range(keys[-1], found, path, text)
        if path in _NAMES:
            _check_name(path, found, f"{path} cannot be {text!r}: ")
        planned = plan.overrides.get(path, before)
        same_again = path in plan.overrides
        return record(changed, path, found, "" if same_again else _show(planned))
    raise AutosegError(f"{path} cannot be {text!r}: {fault}", f"it is {_show(before)} now: give a value of the same kind")


def _find(plan: Plan, keys: list[str], path: str) -> Any:
    """The value at a path. Raises AutosegError naming the nearest fields where there is none."""
    value: Any = plan
    for depth, key in enumerate(keys):
        known = _fields(value)
        free = depth > 0 and keys[depth - 1] == "options"
        if (key not in known and not free) or key in _DERIVED or (key in _ELSEWHERE and not free):
            _unknown(plan, path, keys)
        value = known.get(key)
    if dataclasses.is_dataclass(value) or (isinstance(value, dict) and keys[-1] != "options"):
        offered = ", ".join(f"{path}.{key}" for key in _fields(value) if key not in _DERIVED)
        raise AutosegError(f"{path} is not one value", f"set one of: {offered}")
    return value


def _unknown(plan: Plan, path: str, keys: list[str]) -> None:
    if keys[-1] in _ELSEWHERE:
        raise AutosegError(f"{path} is not set this way", _ELSEWHERE[keys[-1]])
    if keys[-1] in _DERIVED and len(keys) <= 3:
        raise AutosegError(f"{path} follows from the other fields and cannot be set", "set what it follows from")
    known = [*AT_PLANNING, *_paths(plan)]
    ends = [name for name in known if name.split(".")[-1] == keys[-1]]
    near = ends[:3] or difflib.get_close_matches(path, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise AutosegError(f"a plan has no field {path!r}", hint)


def _paths(value: Any, prefix: str = "") -> Iterator[str]:
    for key, inner in _fields(value).items():
        if key in _DERIVED or key in _ELSEWHERE:
            continue
        if dataclasses.is_dataclass(inner) or (isinstance(inner, dict) and inner):
            yield from _paths(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value if isinstance(value, dict) else {}


def _readings(text: str) -> Iterator[Any]:
    """What a text may mean, likeliest first."""
    text = text.strip()
    for attempt in (text, f"[{text}]", "[" + text.lower().replace("x", ",") + "]", text.lower()):
        try:
            value = json.loads(attempt)
        except json.JSONDecodeError:
            continue
        if not (isinstance(value, float) and not math.isfinite(value)):
            yield value
    yield text
    # Last, since "none" is also a word that a field may hold.
    if text.lower() in ("none", "null"):
        yield None


def _check_range(field: str, value: Any, path: str, text: str) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    if field in _POSITIVE and any(number is not None and number <= 0 for number in numbers):
        raise AutosegError(f"{path} cannot be {text!r}", "give a value above zero")
    if (field.startswith("p_") or field == "foreground_share") and not 0 <= value <= 1:
        raise AutosegError(f"{path} cannot be {text!r}", "it is a share: give a value from 0 to 1")
    if field in ("cldice", "search_epochs") and value < 0:
        raise AutosegError(f"{path} cannot be {text!r}", "give 0, for none, or more")
    if field == "folds" and value < 2:
        raise AutosegError(f"{path} cannot be {text!r}", "cross-validation needs at least 2 folds")
    if field == "mirror" and not set(value) <= {0, 1}:
        raise AutosegError(f"{path} cannot be {text!r}", "axes are 0 (up-down) and 1 (left-right); [] for none")


def _settled(plan: Plan, path: str) -> Plan:
    """What follows from a changed field of a model: equal parts of the batch, and the store its input size needs."""
    keys = path.split(".")
    if keys[0] != "models" or len(keys) < 3:
        return plan
    model = plan.models[keys[1]]
    if keys[2] == "batch_size" and model.batch_size % model.accumulate:
        # Parts no larger than before, since those are what fits the memory.
        divisors = (parts for parts in range(model.accumulate, model.batch_size) if model.batch_size % parts == 0)
        model = replace(model, accumulate=next(divisors, model.batch_size))
    if keys[2] == "accumulate" and model.batch_size % model.accumulate:
        raise AutosegError(
            f"{path} cannot be {model.accumulate}: a batch of {model.batch_size} has no so many equal parts",
            "choose a divisor of the batch size",
        )
    configs = dict(plan.preprocessing)
    old = configs[model.preprocessing]
    if keys[2] == "input_size" and old.geometry == "resize" and old.size != model.input_size:
        new = whole_of_size(old, model.input_size)
        configs.setdefault(new.key, new)
        model = replace(model, preprocessing=new.key)
    models = {**plan.models, keys[1]: model}
    used = {one.preprocessing for one in models.values()}
    return replace(plan, models=models, preprocessing={key: config for key, config in configs.items() if key in used})


def _searched_in_proportion(before: Plan, plan: Plan) -> Plan:
    old = before.training
    if old.search_epochs == 0 or "training.search_epochs" in plan.overrides:
        return plan
    tried = max(1, round(old.search_epochs * plan.training.epochs / old.epochs))
    return replace(plan, training=replace(plan.training, search_epochs=tried))


def with_input_size(plan: Plan, model: str, size: tuple[int, int], because: str) -> Plan:
    """The plan with a model's input size changed for a reason that is not the user's own wish, and the store it needs."""
    path = f"models.{model}.input_size"
    changed = replace(plan, models={**plan.models, model: replace(plan.models[model], input_size=size)})
    return _settled(with_decision(changed, Decision(path, f"{size[0]}x{size[1]}", because)), path)


def whole_of_size(preparation: PreprocessingConfig, size: tuple[int, int]) -> PreprocessingConfig:
    """The same preparation with every image at another size (height, width)."""
    return replace(preparation, size=size, key=f"resize_{size[0]}x{size[1]}")


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_show(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
