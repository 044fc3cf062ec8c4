"""The raw files a plan was made from: `sources.json` next to the plan."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import Count, FileName


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file. path: relative to the raw dataset's folder, or absolute. size: in bytes. modified, changed: times of the
    content and of the entry in the file system, in nanoseconds since 1970. hash: XXH3, 128 bits, of its content."""

    path: str
    size: Count
    modified: int
    changed: int
    hash: str


@dataclass(frozen=True, slots=True)
class SourceCase:
    """One training case. label: None without a mask."""

    images: tuple[SourceFile, ...]
    label: SourceFile | None


@dataclass(frozen=True, kw_only=True)
class Sources(Artefact):
    """`sources.json`. content_hash: of everything here but the times (`Fingerprint.content_hash`). recorded: when the files
    were looked at, in nanoseconds since 1970. description: the fields of dataset.json that decide something, as JSON."""

    NAME = "sources"
    VERSION = 1

    content_hash: str
    recorded: Count
    description: str
    cases: dict[FileName, SourceCase]
