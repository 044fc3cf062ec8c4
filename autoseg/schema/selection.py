"""What `autoseg_select` tried, decided and confirmed: `selection.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from autoseg.schema.artefact import Artefact
from autoseg.schema.comparison import Interval, PairTest
from autoseg.schema.frame import Row, Tabular, count
from autoseg.schema.limits import AboveZero, Count, FileName, LearningRate, NonNegative, Result, Side

Role = Literal["winner", "runner-up", "default"]


@dataclass(frozen=True, kw_only=True)
class SelectionCandidate:
    """One way to train: a model with a variant, a geometry, an input size and a learning rate.

    frozen: its encoder does not learn. changes: number of settings that differ from the planner's choice for the model.
    step_seconds: of an optimiser step, measured when it was planned. settings: for `--set`. left_out: why it was not tried, ""
    if it was.
    """

    name: FileName
    model: FileName
    family: str
    variant: str
    geometry: Literal["resize", "patch"]
    input_size: tuple[Side, Side]
    learning_rate: LearningRate
    frozen: bool
    changes: Count
    step_seconds: NonNegative
    settings: dict[str, str]
    left_out: str = ""


@dataclass(frozen=True, kw_only=True)
class TriedCandidate:
    """A candidate in a rung. value: of the objective on the deciding cases, not-a-number if its training failed.

    steps: of the optimiser. seconds: of the training. image_seconds: of the training of one image. eliminated: why it is not in
    the next rung, "" if it is.
    """

    name: FileName
    value: Result
    steps: Count
    seconds: NonNegative
    image_seconds: NonNegative
    eliminated: str = ""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A round in which every candidate trains a complete schedule for the same time. level: its folder is level_<level>.

    kind: "frozen" for the round that compares frozen encoders only. seconds: planned for each training. tried: best first.
    """

    kind: Literal["frozen", "full"]
    level: Count
    seconds: NonNegative
    tried: tuple[TriedCandidate, ...]


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """A candidate trained on the dataset's folds. run: name of its folder below the dataset's results. roles: why it is here.

    value, dice: mean over the held-back cases (or patients) of the objective, and of Dice; value_all: over all held-out cases,
    those that decided too. seconds: of all folds' trainings; image_seconds: see TriedCandidate. failed: why it has no numbers.
    """

    name: FileName
    run: FileName
    roles: tuple[Role, ...]
    folds: Count
    cases: Count
    value: Interval
    dice: Interval
    value_all: Result
    seconds: NonNegative
    image_seconds: NonNegative
    failed: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelSelection(Artefact, Tabular):
    """`results/<dataset>/selection/selection.json`. objective: the metric, see `autoseg_evaluate`.

    hours: allowed for everything; spent_hours: of all jobs so far. content_hash: of the raw data; splits_hash: of the folds.
    first_seconds: of a training of level 0; level: of the last rung and of the folds; entered: names of the candidates of the
    first rung, in order; default: what the planner would train.
    training, deciding, held_back: the cases that candidates trained on, that decided, and that no decision saw.
    tests: of each pair of confirmed candidates, on the held-back cases. recommended: a name, "" while it runs; reason: why.
    predict: command that predicts with the confirmed folds; train: commands for the final training.
    job_seconds: job -> seconds of all its starts, from start to end. overhead_seconds: of these what was not training.
    """

    NAME = "selection"
    VERSION = 1

    dataset: FileName
    objective: str
    higher_is_better: bool
    seed: Count
    hours: AboveZero
    spent_hours: NonNegative
    content_hash: str
    splits_hash: str
    first_seconds: NonNegative
    level: Count
    entered: tuple[FileName, ...]
    default: FileName
    training: tuple[FileName, ...]
    deciding: tuple[FileName, ...]
    held_back: tuple[FileName, ...]
    roles_reason: str
    candidates: tuple[SelectionCandidate, ...]
    rungs: tuple[Rung, ...] = ()
    confirmed: tuple[Confirmed, ...] = ()
    tests: tuple[PairTest, ...] = ()
    recommended: str = ""
    reason: str = ""
    predict: str = ""
    train: tuple[str, ...] = ()
    job_seconds: dict[str, NonNegative] = field(default_factory=dict)
    overhead_seconds: NonNegative = 0.0
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        """Names of candidates that are not in the list."""
        known = {candidate.name for candidate in self.candidates}
        named = {"entered": set(self.entered), "confirmed": {one.name for one in self.confirmed}}
        named["default"] = {self.default}
        named |= {f"rungs[{number}]": {one.name for one in rung.tried} for number, rung in enumerate(self.rungs)}
        for path, names in named.items():
            for name in sorted(names - known):
                yield f"{path}: expected names of candidates, found {name!r}"

    def candidate(self, name: str) -> SelectionCandidate:
        return next(one for one in self.candidates if one.name == name)

    @property
    def rounds(self) -> tuple[Rung, ...]:
        """The rungs without the round of frozen encoders."""
        return tuple(rung for rung in self.rungs if rung.kind == "full")

    def confirmed_as(self, role: Role) -> Confirmed | None:
        return next((one for one in self.confirmed if role in one.roles), None)

    def summary(self) -> str:
        tried = count(len(self.entered), "candidate")
        chosen = next((one for one in self.confirmed if one.name == self.recommended), None)
        if chosen is None:
            return f"{self.dataset}: {tried}, not finished"
        held_back = count(chosen.cases, "held-back case")
        return f"{self.dataset}: {self.recommended} of {tried}, {self.objective} {chosen.value.mean:.3f} on {held_back}"

    def to_rows(self) -> list[Row]:
        rows: list[Row] = []
        for number, rung in enumerate(self.rungs):
            rows += (
                {
                    "dataset": self.dataset, "rung": number, "kind": rung.kind, "candidate": one.name,
                    self.objective: one.value, "steps": one.steps, "seconds": one.seconds, "eliminated": one.eliminated,
                }
                for one in rung.tried
            )  # fmt: skip
        return rows

    def overview(self) -> list[Row]:
        return [
            {
                "dataset": self.dataset, "candidate": one.name, "as": ", ".join(one.roles), self.objective: one.value.mean,
                "low": one.value.low, "high": one.value.high, "recommended": one.name == self.recommended,
            }
            for one in self.confirmed
        ]  # fmt: skip


UNDEFINED = Interval(math.nan, math.nan, math.nan)
