"""Scores of predictions against references."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autoseg.schema.artefact import Artefact, Content
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import Count, FileName, NonNegative, NonNegativeResult, PathBelow, Result, ShareResult

# Those of which more, or less, is better.
COMPARABLE_METRICS = (
    "dice", "iou", "precision", "recall", "hd95", "hd95_diagonal", "hd95_pooled", "asd", "nsd", "cldice", "boundary_iou",
    "area_error", "object_sensitivity", "object_precision", "object_f1", "panoptic_quality",
)  # fmt: skip
BUILT_IN_METRICS = (*COMPARABLE_METRICS, "area_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class in one case. Counts in pixels, distances in `unit` of Scores, the rest fractions.

    A metric that is undefined (see `rule` in Scores) is not-a-number, and so is one that the file lacks. hd95 leaves out a
    class that is in one mask only, hd95_diagonal has the image's diagonal then. object_tp, object_fp, object_fn: objects found,
    invented, missed. added: metrics of other packages by name; their ranges are their own.
    """

    tp: Count
    fp: Count
    fn: Count
    dice: ShareResult
    iou: ShareResult
    precision: ShareResult
    recall: ShareResult
    hd95: NonNegativeResult
    hd95_diagonal: NonNegativeResult = math.nan
    hd95_pooled: NonNegativeResult = math.nan
    asd: NonNegativeResult = math.nan
    nsd: ShareResult = math.nan
    cldice: ShareResult = math.nan
    boundary_iou: ShareResult = math.nan
    area_error: NonNegativeResult = math.nan
    area_bias: Result = math.nan
    object_tp: Count = 0
    object_fp: Count = 0
    object_fn: Count = 0
    object_sensitivity: ShareResult = math.nan
    object_precision: ShareResult = math.nan
    object_f1: ShareResult = math.nan
    panoptic_quality: ShareResult = math.nan
    added: dict[str, Result] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """One metric by name."""
        return float(getattr(self, metric)) if metric in BUILT_IN_METRICS else self.added.get(metric, math.nan)


@dataclass(frozen=True, slots=True)
class CaseScore:
    """One case. classes: name -> score."""

    case: PathBelow
    classes: dict[FileName, ClassScore]


@dataclass(frozen=True)
class MetricSummary:
    """One metric of one class over the set. mean and std over the cases where it is defined; undefined: number of others."""

    mean: Result
    std: NonNegativeResult
    median: Result
    undefined: Count


@dataclass(frozen=True)
class ClassSummary:
    """One class over the set. pooled: metrics from its counts summed over all cases, of pixels and of objects. per_image: see
    MetricSummary; clDice only of thin classes."""

    pooled: dict[str, Result]
    per_image: dict[str, MetricSummary]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """ece: expected calibration error. brier: Brier score. cases: number with stored probabilities. confidence, accuracy,
    share: of each bin, its mean confidence, accuracy and fraction of all pixels (not-a-number in empty bins). near_...: the
    same of the pixels near the foreground, see `metrics.rules.DEFINITIONS`; not in older files."""

    ece: ShareResult
    cases: Count
    confidence: tuple[ShareResult, ...]
    accuracy: tuple[ShareResult, ...]
    share: tuple[ShareResult, ...]
    brier: ShareResult = math.nan
    near_ece: ShareResult = math.nan
    near_brier: ShareResult = math.nan
    near_confidence: tuple[ShareResult, ...] = ()
    near_accuracy: tuple[ShareResult, ...] = ()
    near_share: tuple[ShareResult, ...] = ()


def _to_version_2(content: Content) -> Content:
    """Averages over the counts of all classes, which the counts of the cases give; means over the classes get their name."""
    scores = [score for case in content["cases"] for score in case["classes"].values()]
    tp, fp, fn = (sum(score[name] for score in scores) for name in ("tp", "fp", "fn"))
    quotients = {
        "dice": (2 * tp, 2 * tp + fp + fn), "iou": (tp, tp + fp + fn), "precision": (tp, tp + fp), "recall": (tp, tp + fn),
    }  # fmt: skip
    micro = {f"micro.{name}": above / below if below else None for name, (above, below) in quotients.items()}
    renamed = {key.replace("pooled.", "class_mean.", 1): value for key, value in content["overall"].items()}
    content["overall"] = micro | renamed
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class Scores(Artefact, Tabular):
    """`scores.json`. overall: all foreground classes together: "micro.dice" of the counts summed over cases and classes (the
    first study's mDSC), "class_mean.dice" and "per_image.dice" means over the classes, ... unit: of distances, mm or px.

    rule: how empty masks are scored, in words. definitions: what each metric means, in words. tolerance: of nsd, in `unit`.
    thin: classes that have a clDice. calibration: if probabilities were stored next to the masks. notes: which choices of a
    training saw the cases; how mask values were read, if they were no class numbers.
    """

    NAME = "scores"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)

    cases: tuple[CaseScore, ...]
    classes: dict[FileName, ClassSummary]
    overall: dict[str, Result]
    undefined: Count
    unit: str
    rule: str
    definitions: dict[str, str] = field(default_factory=dict)
    tolerance: NonNegative = 0.0
    thin: tuple[str, ...] = ()
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        kinds = {"micro.dice": "mDSC", "class_mean.dice": "Dice as class mean", "per_image.dice": "per image"}
        if len(self.classes) == 1:
            del kinds["class_mean.dice"]
        dice = ", ".join(f"{name} {self.overall.get(key, math.nan):.3f}" for key, name in kinds.items())
        return f"{count(len(self.cases), 'case')}, {count(len(self.classes), 'class')}: {dice}"

    def to_rows(self) -> list[Row]:
        scores = [(one.case, name, score) for one in self.cases for name, score in one.classes.items()]
        numbers = [{name: value for name, value in fields(score).items() if name != "added"} for _, _, score in scores]
        return [
            {"case": case, "class": name, **row, **score.added}
            for (case, name, score), row in zip(scores, numbers, strict=True)
        ]

    def overview(self) -> list[Row]:
        means = {name: {key: one.mean for key, one in item.per_image.items()} for name, item in self.classes.items()}
        return [{"class": name, "pooled_dice": one.pooled.get("dice"), **means[name]} for name, one in self.classes.items()]
