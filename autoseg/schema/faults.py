"""Describes faults in the content of a file: field, expected value, actual value."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_MAX_SHOWN = 40


def faults(value: Any, kind: Any, path: str = "") -> Iterator[str]:
    """Faults of a parsed JSON value against the type `kind`, field by field. path: of the value."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        yield from _dataclass_faults(value, kind, path)
    elif origin in (Union, types.UnionType):
        yield from _union_faults(value, arguments, path)
    elif origin is tuple:
        yield from _tuple_faults(value, arguments, path)
    elif origin is dict:
        if not isinstance(value, dict):
            yield _fault(path, "an object", value)
            return
        for key, item in value.items():
            yield from faults(item, arguments[1], f"{path}.{key}" if path else str(key))
    elif origin is Literal:
        if value not in arguments:
            yield _fault(path, f"one of {', '.join(map(str, arguments))}", value)
    elif kind in _WORDS and not _is_simple(value, kind):
        yield _fault(path, _WORDS[kind], value)


def _dataclass_faults(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _fault(path, "an object", value)
        return
    before = f"{path}." if path else ""
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            yield f"unknown field {before}{name}" + (f" (did you mean {near[0]}?)" if near else "")
    for name, field in fields.items():
        if name in value:
            yield from faults(value[name], hints[name], before + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            yield f"{before}{name} is missing"


def _union_faults(value: Any, kinds: tuple[Any, ...], path: str) -> Iterator[str]:
    alternatives = [list(faults(value, kind, path)) for kind in kinds if kind is not type(None)]
    if (value is None and type(None) in kinds) or not all(alternatives):
        return
    # Report the alternative that fits best.
    yield from min(alternatives, key=lambda messages: any(one.startswith(f"{path}: expected") for one in messages))


def _tuple_faults(value: Any, kinds: tuple[Any, ...], path: str) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield _fault(path, "a list", value)
        return
    if kinds[1:] == (...,):
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        yield _fault(path, f"a list of {len(kinds)}", value)
        return
    for number, (item, kind) in enumerate(zip(value, kinds, strict=True)):
        yield from faults(item, kind, f"{path}[{number}]")


def _is_simple(value: Any, kind: type) -> bool:
    """JSON has no word for not-a-number: null stands for it."""
    if kind is float:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return type(value) is kind


def _fault(path: str, expected: str, value: Any) -> str:
    shown = "null" if value is None else repr(value)
    found = shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 3] + "..."
    return f"{path}: expected {expected}, found {found}" if path else f"expected {expected}, found {found}"
