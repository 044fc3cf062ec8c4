"""Faults in the content of a file, in words: field, expected value, actual value."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from autoseg.schema.limits import LARGEST_FLOAT, LARGEST_INT, Limit

Test = Callable[[Any], bool]
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_MAX_SHOWN = 40


def fits(value: Any, kind: Any) -> bool:
    """Whether a parsed JSON value has the type `kind` and is in its range: `faults` finds nothing."""
    return compiled_test(kind)(value)


@cache
def compiled_test(kind: Any) -> Test:
    """A fast test of parsed JSON against the type `kind`. It is true exactly where `faults` finds nothing."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_test(kind)
    if origin is Annotated:
        base, holds = compiled_test(arguments[0]), arguments[1].holds
        if arguments[0] is float:
            return lambda value: (value is None or _is_number(value)) and holds(value)
        return lambda value: base(value) and holds(value)
    if origin in (Union, types.UnionType):
        tests = [compiled_test(argument) for argument in arguments]
        return lambda value: any(test(value) for test in tests)
    if origin is tuple:
        return _tuple_test(arguments)
    if origin is dict:
        name, item = compiled_test(arguments[0]), compiled_test(arguments[1])
        return lambda value: isinstance(value, dict) and all(map(name, value)) and all(map(item, value.values()))
    if origin is Literal:
        return lambda value: isinstance(value, str | int) and value in arguments
    return _SIMPLE.get(kind, lambda value: True)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _dataclass_test(kind: Any) -> Test:
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    required = {name for name, field in fields.items() if _is_required(field)}
    tests = {name: compiled_test(hints[name]) for name in fields}

    def test(value: Any) -> bool:
        if not isinstance(value, dict) or not required <= value.keys() <= tests.keys():
            return False
        return all(tests[name](item) for name, item in value.items())

    return test


def _tuple_test(kinds: tuple[Any, ...]) -> Test:
    if kinds[1:] == (...,):
        item = compiled_test(kinds[0])
        return lambda value: isinstance(value, list | tuple) and all(map(item, value))
    tests = [compiled_test(kind) for kind in kinds]
    return lambda value: (
        isinstance(value, list | tuple)
        and len(value) == len(tests)
        and all(test(item) for test, item in zip(tests, value, strict=True))
    )


def _is_int(value: Any) -> bool:
    return type(value) is int and -LARGEST_INT <= value <= LARGEST_INT


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_int(value)


_SIMPLE: dict[Any, Test] = {
    int: _is_int,
    float: lambda value: _is_number(value) and abs(value) <= LARGEST_FLOAT,
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    type(None): lambda value: value is None,
}


def faults(value: Any, kind: Any, path: str = "") -> Iterator[str]:
    """Faults of a parsed JSON value against the type `kind`, field by field. path: of the value."""
    origin, arguments = get_origin(kind), get_args(kind)
    if fits(value, kind):
        return
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
            for _ in faults(key, arguments[0]):
                yield _fault(path, f"every name to be {arguments[0].__metadata__[0]}", key)
            yield from faults(item, arguments[1], f"{path}.{key}" if path else str(key))
    elif origin is Literal:
        yield _fault(path, f"one of {', '.join(map(str, arguments))}", value)
    elif origin is Annotated:
        yield _fault(path, _limited(arguments[0], arguments[1], value), value)
    else:
        yield _fault(path, _WORDS.get(kind, "nothing"), value)


def _limited(kind: Any, limit: Limit, value: Any) -> str:
    """What was expected: the type where that is wrong, else the range."""
    if kind is float:
        is_kind = value is None or _is_number(value)
    else:
        is_kind = fits(value, kind)
    text = str(limit) if is_kind else _WORDS[kind]
    return text.replace("a number", "a whole number") if kind is int and is_kind else text


def _dataclass_faults(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _fault(path, "an object", value)
        return
    before = f"{path}." if path else ""
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            yield f"unknown field {before}{name}" + (f" (did you mean {near[0]}?)" if near else "")
    for name, field in fields.items():
        if name in value:
            yield from faults(value[name], hints[name], before + name)
        elif _is_required(field):
            yield f"{before}{name} is missing"


def _union_faults(value: Any, kinds: tuple[Any, ...], path: str) -> Iterator[str]:
    alternatives = [list(faults(value, kind, path)) for kind in kinds if kind is not type(None)]
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


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _fault(path: str, expected: str, value: Any) -> str:
    text = "null" if value is None else repr(value)
    actual = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
    return f"{path}: expected {expected}, found {actual}" if path else f"expected {expected}, found {actual}"
