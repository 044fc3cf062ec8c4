"""Scores of predictions against references."""

from __future__ import annotations

from dataclasses import dataclass, field

METRICS = ("dice", "iou", "precision", "recall", "hd95")


@dataclass(frozen=True)
class ClassScore:
    """One class in one case. Counts in pixels. A metric that is undefined (see `rule` in Scores) is not-a-number."""

    tp: int
    fp: int
    fn: int
    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float


@dataclass(frozen=True)
class CaseScore:
    """One case. classes: name -> score."""

    case: str
    classes: dict[str, ClassScore]


@dataclass(frozen=True)
class MetricSummary:
    """One metric of one class over the set. mean and std over the cases where it is defined; undefined: how many not."""

    mean: float
    std: float
    median: float
    undefined: int


@dataclass(frozen=True)
class ClassSummary:
    """One class over the set. pooled: metrics from the counts summed over all cases (no HD95). per_image: see MetricSummary."""

    pooled: dict[str, float]
    per_image: dict[str, MetricSummary]


@dataclass(frozen=True)
class Scores:
    """`scores.json`. overall: means over foreground classes (pooled and per image). unit: of distances, mm or px.

    rule: how empty masks are scored, in words. definitions: what each metric means, in words.
    """

    cases: tuple[CaseScore, ...]
    classes: dict[str, ClassSummary]
    overall: dict[str, float]
    undefined: int
    unit: str
    rule: str
    definitions: dict[str, str] = field(default_factory=dict)
