"""Successive halving: how many candidates enter each rung, how long each training takes, who goes on.

Each rung trains complete schedules, for a third of the time of the next one: a learning rate schedule that is cut off says
little about one that ends. After Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS 2016; Li et al., "A system for massively parallel hyperparameter tuning" (ASHA), MLSys 2020. A rung is
decided when all of it has ended, not as soon as a third has, so that the decisions do not depend on which job ends first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoseg.schema.selection import TriedCandidate

# Each rung takes so many times the time of the one before; one candidate in so many goes on.
FACTOR, RUNGS = 3, 3
# At least so many enter the second and the third rung: the last one must tell a winner from a runner-up.
_LEAST = (3, 2)
# Winner and runner-up of the last rung, and the planner's default.
CONTENDERS = 3
# Values that differ by less are equal, so that the faster candidate goes on.
_DECIMALS = 3


def entrants(candidates: int) -> tuple[int, ...]:
    """How many candidates enter each rung."""
    numbers = [candidates]
    for least in _LEAST:
        numbers.append(min(numbers[-1], max(least, math.ceil(numbers[-1] / FACTOR))))
    return tuple(numbers)


@dataclass(frozen=True)
class Shape:
    """What a selection costs: trainings of each length, for so many candidates and folds."""

    candidates: int
    folds: int

    @property
    def trainings(self) -> float:
        """All trainings together, in trainings as long as those of a fold."""
        numbers = entrants(self.candidates)
        rungs = sum(level_seconds(number, rung - RUNGS + 1) for rung, number in enumerate(numbers))
        return rungs + CONTENDERS * self.folds

    @property
    def jobs(self) -> int:
        return sum(entrants(self.candidates)) + CONTENDERS * self.folds

    def fold_seconds(self, seconds: float, start: float) -> float:
        """The longest training of a fold for which everything fits in `seconds`. start: of each job, besides training."""
        return (seconds - self.jobs * start) / self.trainings

    def seconds(self, fold_seconds: float, start: float) -> float:
        """Of everything."""
        return self.jobs * start + self.trainings * fold_seconds


def level_seconds(first: float, level: int) -> float:
    """Of a training of a level. first: of level 0."""
    return first * math.pow(FACTOR, level)


def decide(
    tried: Sequence[TriedCandidate], go_on: int, objective: str, higher_is_better: bool
) -> tuple[TriedCandidate, ...]:
    """The candidates of a rung, best first, those after the first `go_on` with the reason why they were eliminated.

    Of equal values the faster comes first, by the seconds of an image in training. Failed trainings come last, and never go on.
    """
    ordered = sorted(tried, key=lambda one: _key(one, higher_is_better))
    valued = [one for one in ordered if not math.isnan(one.value)]
    last = valued[min(go_on, len(valued)) - 1] if valued else None
    decided = []
    for place, one in enumerate(ordered, 1):
        if math.isnan(one.value):
            decided.append(replace(one, eliminated=one.eliminated or "its training failed"))
        elif place <= go_on:
            decided.append(replace(one, eliminated=""))
        else:
            assert last is not None
            distance = abs(last.value - one.value)
            equal = round(last.value, _DECIMALS) == round(one.value, _DECIMALS)
            why = "as good, but slower" if equal else f"{distance:.3f} {'below' if higher_is_better else 'above'}"
            others = f"{why} {'than ' if equal else ''}the last that went on ({last.value:.3f})"
            eliminated = f"{objective} {one.value:.3f}, place {place} of {len(ordered)}, {go_on} go on: {others}"
            decided.append(replace(one, eliminated=eliminated))
    return tuple(decided)


def _key(one: TriedCandidate, higher_is_better: bool) -> tuple[bool, float, float, str]:
    missing = math.isnan(one.value)
    value = 0.0 if missing else round(one.value, _DECIMALS)
    return missing, -value if higher_is_better else value, one.image_seconds, one.name
