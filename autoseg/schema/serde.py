"""Dataclasses to JSON and back, strictly: an unknown, missing or ill-typed field is an error that names it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

import dacite

from autoseg.schema.artefact import Artefact, Content
from autoseg.schema.faults import faults, fits

T = TypeVar("T")
A = TypeVar("A", bound=Artefact)
_MAX_FAULTS = 3


class SchemaError(ValueError):
    """The text does not match the schema; the message names the field."""


class NewerVersionError(SchemaError):
    """The text was written by a release that came after this one."""


def to_json(artefact: Artefact) -> str:
    """JSON of an artefact, its name and version first. Not-a-number becomes null: JSON has no value for it."""
    return "".join(json_pieces(artefact))


def json_pieces(artefact: Artefact) -> Iterator[str]:
    """The text of `to_json` in small pieces, generated lazily to save memory."""
    content = {"artefact": artefact.NAME, "schema_version": artefact.VERSION, **_fields(artefact)}
    yield from json.JSONEncoder(indent=1, ensure_ascii=False, default=_fields).iterencode(content)
    yield "\n"


def to_line(part: Any) -> str:
    """JSON of any dataclass on one line, without name and version."""
    return json.dumps(_fields(part), ensure_ascii=False, default=_fields)


def from_json(text: str, kind: type[A]) -> A:
    """The artefact that JSON text describes; older versions are migrated. Raises SchemaError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # Not only of the syntax: numbers of thousands of digits, deep nesting.
        raise SchemaError(f"not valid JSON: {error}") from error
    return from_content(content, kind)


def from_content(content: Any, kind: type[A]) -> A:
    """The same from parsed JSON. Raises SchemaError for fields of another type or out of their range, and for fields that
    contradict each other (`Artefact.problems`)."""
    artefact = from_dict(migrate_content(content, kind), kind)
    problems = list(islice(artefact.problems(), _MAX_FAULTS))
    if problems:
        raise SchemaError("; ".join(problems))
    return artefact


def migrate_content(content: Any, kind: type[Artefact]) -> Content:
    """Migrate a file's content to the current version of `kind`; its fields are not yet checked. Raises SchemaError."""
    if not isinstance(content, dict):
        raise SchemaError(f"expected an object, found a {type(content).__name__}")
    name, version = content.pop("artefact", kind.NAME), content.pop("schema_version", 1 if kind.UNMARKED else None)
    if name != kind.NAME:
        raise SchemaError(f"expected an artefact of the kind {kind.NAME}, found {name!r}")
    if version is None:
        raise SchemaError("it has no schema_version: autoseg did not write it")
    if type(version) is not int or version < 1:
        raise SchemaError(f"schema_version: expected a whole number from 1 on, found {version!r}")
    if version > kind.VERSION:
        versions = f"version {version} of {kind.NAME}, this one reads up to {kind.VERSION}"
        raise NewerVersionError(f"it was written by a newer release of autoseg ({versions})")
    try:
        return kind.migrate(content, version)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        expected = f"{kind.NAME} of version {version}"
        raise SchemaError(f"it is not {expected}, or damaged: {type(error).__name__}: {error}") from error


def from_dict(content: Content, kind: type[T]) -> T:
    """The dataclass a plain dict describes; lists become tuples where the field is one. Raises SchemaError for fields of
    another type or out of their range."""
    if not fits(content, kind):
        raise SchemaError("; ".join(islice(faults(content, kind), _MAX_FAULTS)))
    return dacite.from_dict(kind, content, _CONFIG)


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


# The content was checked before; dacite alone takes true for 1 and text for a list of letters.
_CONFIG = dacite.Config(cast=[tuple], check_types=False, type_hooks={float: _number})


def _fields(artefact: Any) -> Content:
    """The fields of a dataclass by name; the encoder converts nested dataclasses."""
    return {field.name: _plain(getattr(artefact, field.name)) for field in dataclasses.fields(artefact)}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
