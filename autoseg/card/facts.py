"""What a model card tells, collected from the records of the trainings. Names of cases and patients never get here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from autoseg.models import registry
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.prediction import Calibration, PostProcessing
from autoseg.schema.run import InitialWeights
from autoseg.schema.scores import Scores
from autoseg.training.checkpoint import Trained


@dataclass(frozen=True, kw_only=True)
class Member:
    """One trained fold. scores: of its held-out cases, None if they were not scored. training_cases: their number.
    splits_reason: how the folds were made."""

    trained: Trained
    scores: Scores | None
    training_cases: int
    splits_reason: str


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """fingerprint: None if it is missing. versions: of programs."""

    members: tuple[Member, ...]
    fingerprint: Fingerprint | None
    calibration: Calibration | None
    postprocessing: dict[str, PostProcessing]
    versions: dict[str, str]

    @property
    def first(self) -> Trained:
        return self.members[0].trained

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.trained.record.model for member in self.members))

    @property
    def weights(self) -> tuple[InitialWeights, ...]:
        return tuple(dict.fromkeys(one for member in self.members for one in member.trained.record.weights))

    @property
    def choices(self) -> tuple[str, ...]:
        """That saw the scored cases."""
        return tuple(dict.fromkeys(one for member in self.members for one in member.trained.record.saw_scored_cases))

    @property
    def scored(self) -> tuple[tuple[Member, Scores], ...]:
        return tuple((member, member.scores) for member in self.members if member.scores is not None)

    @property
    def held_out_cases(self) -> int:
        return len({case.case for _, scores in self.scored for case in scores.cases})

    def spread(self, model: str, key: str, name: str = "") -> str:
        """Mean ± deviation over the folds of a model, of a number of all classes or of the class `name`; "" without any."""
        values = [_number(scores, key, name) for member, scores in self.scored if member.trained.record.model == model]
        defined = [value for value in values if not math.isnan(value)]
        if not defined:
            return ""
        text = f"{mean(defined):.3f}"
        return f"{text} ± {stdev(defined):.3f}" if len(defined) > 1 else text


def citation(model: str) -> str:
    """Title and source of an architecture; its name if no installed package knows it."""
    spec = registry.find_spec(model)
    return f"{spec.title} ({spec.citation})" if spec is not None else model


def seeds(facts: CardFacts) -> str:
    return ", ".join(str(one) for one in sorted({member.trained.record.seed for member in facts.members}))


def folds_of(members: Sequence[Member], model: str) -> str:
    """"fold 0", "folds 0, 1"."""
    folds = [str(one.trained.record.fold) for one in members if one.trained.record.model == model]
    return f"fold{'s' * (len(folds) > 1)} {', '.join(folds)}"


def _number(scores: Scores, key: str, name: str) -> float:
    if not name:
        return scores.overall.get(key, math.nan)
    averaging, _, metric = key.partition(".")
    summary = scores.classes.get(name)
    if summary is None:
        return math.nan
    if averaging == "pooled":
        return summary.pooled.get(metric, math.nan)
    return summary.per_image[metric].mean if metric in summary.per_image else math.nan
