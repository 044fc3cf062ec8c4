"""Record of a prediction run: `prediction.json` next to the masks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.dataset import LabelValue
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import (
    Axis,
    Count,
    FileName,
    NonNegative,
    NonNegativeResult,
    PathBelow,
    Positive,
    Share,
    ShareResult,
    Side,
)
from autoseg.schema.run import Choice, choices_text


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Confidence in a mask: each number from 0 (none) to 1, not-a-number if it cannot be computed.

    value: for ranking (lowest first) if there is no expected_dice; `classes`: the same for each class.
    expected_dice: by the calibration on out-of-fold cases. soft_dice: of the probabilities and their own mask, mean over
    members and classes. agreement: mean Dice of all pairs of members (folds, models), mean over classes. All three
    means are over the classes in the mask, because confidence in the absence of other classes says little about the mask;
    over all classes for an empty mask. entropy: of the probabilities, mean over pixels, as a fraction of the maximum; low
    means certain. note: why there is no expected_dice. Without a calibration `value` only ranks masks: a wrong mask may have
    a high one.
    """

    value: ShareResult
    expected_dice: ShareResult
    soft_dice: ShareResult
    agreement: ShareResult
    entropy: ShareResult
    classes: dict[str, ShareResult]
    note: str = ""

    @property
    def is_calibrated(self) -> bool:
        return not math.isnan(self.expected_dice)

    @property
    def word(self) -> str:
        """What to call `value` where it is shown."""
        return "confidence" if self.is_calibrated else "score"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """expected Dice = intercept + slope * confidence, fitted by least squares on `cases` out-of-fold cases.

    empty_offset: added for empty masks, whose confidence has another meaning: if every image shows
    an object, an empty mask is always wrong, however confident. mean_absolute_error: of each case with a line fitted to other
    groups only, as the folds keep them whole (patients, near duplicates); not-a-number if all cases are of one. groups: their
    number; 0 in older files, which judged each case with a line fitted to all others, of the same patient too. score: the
    confidence it uses; out of fold there is only one member, so folds of one model are calibrated with soft Dice.
    """

    cases: Count
    slope: float
    intercept: float
    mean_absolute_error: NonNegativeResult
    score: Literal["soft_dice", "value"] = "soft_dice"
    empty_offset: float = 0.0
    groups: Count = 0

    def __str__(self) -> str:
        """How far to trust the expected Dice."""
        fitted = f"the expected Dice is fitted to {count(self.cases, 'out-of-fold case')}"
        if not self.groups:
            return f"{fitted}; its mean error on the other cases of the same patients is {self.mean_absolute_error:.3f}"
        if math.isnan(self.mean_absolute_error):
            return f"{fitted} of one patient or group, so its error on others is not known"
        return f"{fitted}; its mean error on patients (groups) it was not fitted to is {self.mean_absolute_error:.3f}"

    def __call__(self, confidence: float, empty: bool = False) -> float:
        """Expected Dice, within 0 and 1. empty: the mask is empty."""
        expected = self.intercept + self.slope * confidence + (self.empty_offset if empty else 0.0)
        return expected if math.isnan(expected) else min(max(expected, 0.0), 1.0)


@dataclass(frozen=True)
class PostProcessing:
    """Postprocessing of one class of a mask, in this order. min_object_fraction: smaller objects, as a
    fraction of the image, are dropped.

    keep_largest: all objects but the largest are dropped. fill_holes: background enclosed by the class becomes the class.
    """

    min_object_fraction: Share = 0.0
    keep_largest: bool = False
    fill_holes: bool = False

    def __str__(self) -> str:
        steps = [f"objects below {self.min_object_fraction:.4%} of the image dropped"] if self.min_object_fraction else []
        steps += ["the largest object kept"] if self.keep_largest else []
        steps += ["holes filled"] if self.fill_holes else []
        return ", ".join(steps) or "nothing"


def calibration_of_version_1(content: Content) -> Content:
    """Standard names for the fields of `calibration` and `postprocessing`, which several files have."""
    for before, after in (("of", "score"), ("error", "mean_absolute_error"), ("empty", "empty_offset")):
        rename(content.get("calibration") or {}, before, after)
    for steps in content.get("postprocessing", {}).values():
        if isinstance(steps, dict):  # prediction.json has a text.
            rename(steps, "specks", "min_object_fraction")
    return content


@dataclass(frozen=True, kw_only=True)
class PredictedCase:
    """One written mask. output: its path within the folder. size: (height, width) in pixels.

    pixels: class -> pixels of the mask. seconds: of decoding, network and writing; the time of a batch is divided equally
    among its images. notes: changes by the reader. confidence: see Confidence. warnings: what a person should know before
    using the mask. sha256: of the image file (of the hashes of all files, if a case has
    several). frame: number of the frame in a file with several. mask_sha256: of the written mask, to check it on resuming.
    """

    case: PathBelow
    output: PathBelow
    size: tuple[Side, Side]
    pixels: dict[FileName, Count]
    seconds: dict[str, NonNegative]
    notes: tuple[str, ...] = ()
    confidence: Confidence | None = None
    warnings: tuple[str, ...] = ()
    sha256: str = ""
    frame: Count | None = None
    mask_sha256: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class PredictionRecord(Artefact, Tabular):
    """`prediction.json`. models, folds: the averaged networks. identities: member -> its `RunRecord.identity`.

    mirror: axes of the averaged mirrored views. failed: case -> reason. skipped: cases with a mask of an earlier run of the
    same networks; they are among `cases`. seconds: of the whole run, without loading the networks.
    calibration: of expected Dice. postprocessing: class -> its steps, in words.
    """

    NAME = "prediction"
    VERSION = 2
    MIGRATIONS = (calibration_of_version_1,)

    dataset: FileName
    models: tuple[FileName, ...]
    folds: tuple[Count, ...]
    identities: dict[str, str]
    labels: dict[FileName, LabelValue]
    mirror: tuple[Axis, ...]
    device: str
    precision: str
    seconds: NonNegative
    cases: tuple[PredictedCase, ...]
    failed: dict[PathBelow, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    postprocessing: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        warned = sum(bool(case.warnings) for case in self.cases)
        masks = f"{count(len(self.cases), 'mask')} by {' + '.join(self.models)}"
        return f"{masks}: {warned} with warnings, {len(self.failed)} failed"

    def to_rows(self) -> list[Row]:
        """One row for each image; failed images have only a problem."""
        return [_row(case) for case in self.cases] + [{"case": case, "problem": why} for case, why in self.failed.items()]


def _row(case: PredictedCase) -> Row:
    confidence = fields(case.confidence, "classes", "value", "note") if case.confidence else {}
    return {
        "case": case.case,
        "output": case.output,
        "size": case.size,
        **{f"pixels_{name}": pixels for name, pixels in case.pixels.items()},
        case.confidence.word if case.confidence else "score": case.confidence.value if case.confidence else None,
        **confidence,
        "calibration": case.confidence.note if case.confidence else "",
        "warnings": "; ".join(case.warnings),
    }


@dataclass(frozen=True)
class Candidate:
    """A model or an ensemble, and its Dice on out-of-fold cases: mean over classes and cases."""

    models: tuple[FileName, ...]
    dice: ShareResult


@dataclass(frozen=True, kw_only=True)
class FoldChoice:
    """The choice on all other folds, and its mean Dice on the cases of `fold`, which it did not see."""

    fold: Count
    models: tuple[FileName, ...]
    postprocessing: dict[str, PostProcessing]
    dice: ShareResult
    cases: Positive


def _best_of_version_2(content: Content) -> Content:
    """No nested scores. `dice` counted a class in neither mask as 1, `dice_before` did not."""
    if content["postprocessing"]:
        content["dice"] = None
    else:
        content["dice"] = content["dice_before"]
    return {**content, "nested_dice": None, "nested": []}


@dataclass(frozen=True, kw_only=True, repr=False)
class BestChoice(Artefact, Tabular):
    """`best.json` of a dataset's results. dice: of `models` with `postprocessing`; dice_before: without.

    Both are of the cases the choice was made on, so they are too high for new cases. nested_dice: of the same cases, each
    with the choice that was made without its fold and its patients (`nested`); not-a-number with one fold only.
    candidates: all tried ones, best first. cases: number of out-of-fold cases. identities: member ->
    its `RunRecord.identity`, to detect later training. calibration: of the confidence of these models together.
    held_back: number of cases that `nested_dice` is of, if autoseg_select chose: no decision saw them; 0 if find_best chose.
    command: predicts with the choice. saw_scored_cases: what the trainings chose on the cases they are scored on, see
    `RunRecord`; both Dice are of these networks.
    """

    NAME = "best"
    VERSION = 3
    MIGRATIONS = (calibration_of_version_1, _best_of_version_2)

    dataset: FileName
    models: tuple[FileName, ...]
    folds: tuple[Count, ...]
    dice: ShareResult
    dice_before: ShareResult
    nested_dice: ShareResult
    nested: tuple[FoldChoice, ...]
    cases: Count
    candidates: tuple[Candidate, ...]
    postprocessing: dict[str, PostProcessing]
    identities: dict[str, str]
    command: str
    calibration: Calibration | None = None
    saw_scored_cases: tuple[Choice, ...] = ("epoch",)
    held_back: Count = 0

    def summary(self) -> str:
        chosen = f"{' + '.join(self.models)}, chosen on {count(self.cases, 'case')} of {self.dataset} with Dice {self.dice:.3f}"
        unseen = "not known" if math.isnan(self.nested_dice) else f"{self.nested_dice:.3f}"
        return f"{chosen}; on cases the choice did not see: {unseen}"

    def dice_notes(self) -> tuple[str, str]:
        """What `dice` and `nested_dice` mean, a sentence for each."""
        if self.held_back:
            seen = f"Dice {self.dice:.3f} is of all held-out cases, some of which helped autoseg_select to choose."
            cases = count(self.held_back, "case")
            return seen, f"Dice {self.nested_dice:.3f} is the one to report: of {cases} that no decision saw."
        tried = f"the best of {count(len(self.candidates), 'candidate')} and of all post-processing"
        biased = f"{tried}, so it tends to be too high for new images."
        chosen = f"Dice {self.dice:.3f} is of the cases the choice was made on, {biased}"
        if math.isnan(self.nested_dice):
            return chosen, "There is no Dice of cases that the choice did not see: that takes two folds of each model."
        same = sum(one.models == self.models for one in self.nested)
        folds = f"{same} of {count(len(self.nested), 'fold')} chose the same models"
        trained = choices_text(self.saw_scored_cases)
        return chosen, (
            f"Dice {self.nested_dice:.3f} is the one to report: each fold scored with what was chosen on the other folds "
            f"({folds}). {trained[0].upper()}{trained[1:]}."
        )

    def to_rows(self) -> list[Row]:
        return [{"models": " + ".join(one.models), "dice": one.dice} for one in self.candidates]
