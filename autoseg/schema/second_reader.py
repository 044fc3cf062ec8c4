"""Which reader produced each mask, and why: `second_reader.json` next to the masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import Count, FileName, NonNegative, NonNegativeResult, PathBelow, Share, ShareResult

# flag: keep the first mask and mark it for review. replace: take the second. union, consensus: of both masks.
Policy = Literal["flag", "replace", "union", "consensus"]
POLICIES: tuple[Policy, ...] = ("flag", "replace", "union", "consensus")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One case. reader: who made the mask: "first", "second" or "both". confidence: expected Dice of the first mask
    (uncalibrated confidence without a calibration). agreement: mean Dice of the two masks, not-a-number with only one."""

    case: PathBelow
    reader: str
    confidence: ShareResult
    agreement: ShareResult
    reason: str


def _second_reader_to_version_2(content: Content) -> Content:
    for case in content["cases"]:
        rename(case, "trust", "confidence")
        rename(case, "because", "reason")
    return content


@dataclass(frozen=True, kw_only=True)
class SecondReading(Artefact):
    """`second_reader.json`. first, second: the readers' names. threshold: below it the second was asked.

    calibrated: whether confidence is an expected Dice.
    """

    NAME = "second_reader"
    VERSION = 2
    MIGRATIONS = (_second_reader_to_version_2,)

    first: str
    second: str
    policy: str
    threshold: NonNegative
    calibrated: bool
    cases: tuple[Reading, ...]


@dataclass(frozen=True, kw_only=True)
class ConfidenceArea:
    """How well one confidence score ranks one model's held-out cases by their risk (1 - Dice).

    aurc: area below the risk-coverage curve, less is better; best: of a perfect ranking; random: of none (the mean risk).
    """

    model: str
    score: str
    cases: Count
    aurc: ShareResult
    best: ShareResult
    random: ShareResult


@dataclass(frozen=True, kw_only=True)
class HybridScore:
    """One way of reading one stratum: mean Dice and HD95 over its cases, where defined; hd95_diagonal: see
    `ClassScore`, not-a-number in older files. reader: a model, or a policy."""

    stratum: str
    reader: str
    cases: Count
    dice: ShareResult
    hd95: NonNegativeResult
    hd95_diagonal: NonNegativeResult = math.nan


def _risk_coverage_to_version_2(content: Content) -> Content:
    for score in content["areas"]:
        rename(score, "area", "aurc")
        rename(score, "blind", "random")
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class ReaderStudy(Artefact, Tabular):
    """`risk_coverage.json`. first, second: the readers. asked: held-out cases whose expected Dice is below `threshold`.

    strata: all; hard and easy, the share of cases where the first has its lowest and highest Dice.
    """

    NAME = "risk_coverage"
    VERSION = 2
    MIGRATIONS = (_risk_coverage_to_version_2,)

    dataset: FileName
    areas: tuple[ConfidenceArea, ...]
    first: str
    second: str
    threshold: NonNegative
    share: Share
    asked: tuple[str, ...]
    scores: tuple[HybridScore, ...]

    def summary(self) -> str:
        asked = f"{self.second} asked about {count(len(self.asked), 'case')} of {self.first}"
        return f"{self.dataset}: {asked}, expected Dice below {self.threshold:g}"

    def to_rows(self) -> list[Row]:
        return [fields(one) for one in self.scores]
