"""Findings of an audit of reference masks, and a person's decisions: `audit.json`, `decisions.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from autoseg.schema.artefact import Artefact
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import Count, FileName, PathBelowOrNone, Share

Kind = Literal["missed_object", "empty_mask", "extra_object", "wrong_class", "shifted", "boundary", "conflicting_duplicates"]
Choice = Literal["accept", "reject", "later"]


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """One place where confident models contradict the reference. score: 0 to 1, to rank by. reason: for people.

    label: the class. box: (top, left, bottom, right) in pixels of the image. suggestion: file within the audit's folder,
    a mask (uint16) of values to write, 65535 where the reference is kept; "" if accepting removes the case.
    """

    id: str
    case: FileName
    kind: Kind
    label: str
    score: Share
    reason: str
    box: tuple[Count, Count, Count, Count]
    suggestion: PathBelowOrNone


@dataclass(frozen=True, kw_only=True, repr=False)
class Audit(Artefact, Tabular):
    """`audit.json`. findings: by score, highest first. cases: by their highest score: case -> score. models: whose
    out-of-fold predictions were compared with the references. references: case -> SHA-256 of its mask's file."""

    NAME = "audit"
    VERSION = 1

    dataset: FileName
    models: tuple[FileName, ...]
    cases: dict[FileName, Share]
    findings: tuple[AuditFinding, ...]
    references: dict[FileName, str]

    def summary(self) -> str:
        where = f"{count(len(self.findings), 'finding')} in {count(len(self.cases), 'case')}"
        highest = max((one.score for one in self.findings), default=0.0)
        return f"{self.dataset}: {where}, highest score {highest:.2f}"

    def to_rows(self) -> list[Row]:
        return [fields(one) for one in self.findings]


@dataclass(frozen=True)
class Decisions(Artefact):
    """`decisions.json`, as the gallery saves it. decisions: finding's id -> choice."""

    NAME = "decisions"
    VERSION = 1

    dataset: FileName
    decisions: dict[str, Choice] = field(default_factory=dict)
