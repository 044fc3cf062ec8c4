"""Dataclasses to JSON and back, strictly: an unknown, missing or ill-typed field is an error that names it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import dacite

SCHEMA_VERSION = 1
T = TypeVar("T")


class SchemaError(ValueError):
    """The text is not what the schema asks for; the message names the field."""


def to_json(artefact: Any) -> str:
    """JSON of a dataclass, with the schema version first. Not-a-number becomes null: JSON has no word for it."""
    return "".join(json_pieces(artefact))


def json_pieces(artefact: Any) -> Iterator[str]:
    """The text of `to_json` in small pieces, made as they are asked for: whoever writes them need not hold the whole."""
    content = {"schema_version": SCHEMA_VERSION, **_fields(artefact)}
    yield from json.JSONEncoder(indent=1, ensure_ascii=False, default=_fields).iterencode(content)
    yield "\n"


def from_json(text: str, kind: type[T]) -> T:
    """The dataclass that JSON text describes. Raises SchemaError."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f"not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise SchemaError(f"expected an object, found a {type(content).__name__}")
    return _versioned(content, kind)


def _versioned(content: dict[str, Any], kind: type[T]) -> T:
    version = content.pop("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise SchemaError(f"schema version {version}, this release reads {SCHEMA_VERSION}")
    return from_dict(content, kind)


def peek(text: str, field: str) -> Any:
    """One field of JSON text, None where there is none; whatever schema the rest follows. Raises SchemaError."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f"not valid JSON: {error}") from error
    return content.get(field) if isinstance(content, dict) else None


def from_dict(content: dict[str, Any], kind: type[T]) -> T:
    """The dataclass a plain dict describes; lists become tuples where the field is one. Raises SchemaError."""
    config = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _number})
    try:
        return dacite.from_dict(kind, content, config)
    except dacite.UnexpectedDataError as error:
        known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        unknown = sorted(str(key) for key in error.keys)
        near = {key: difflib.get_close_matches(key, known, n=1) for key in unknown}
        hints = [f"{key}" + (f" (did you mean {match[0]}?)" if match else "") for key, match in near.items()]
        raise SchemaError(f"unknown field {', '.join(hints)}") from error
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise SchemaError(str(error)) from error


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _fields(artefact: Any) -> dict[str, Any]:
    """The fields of a dataclass by name; dataclasses in them are left to the encoder, which asks for each in its turn."""
    return {field.name: _plain(getattr(artefact, field.name)) for field in dataclasses.fields(artefact)}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
