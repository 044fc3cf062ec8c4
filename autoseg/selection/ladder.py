"""Fits rungs and folds to the hours: how long a training of each level is, and which candidates enter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.schema.selection import ModelSelection, SelectionCandidate
from autoseg.selection import trials
from autoseg.selection.halving import FACTOR, RUNGS, Shape, level_seconds
from autoseg.support.errors import AutosegError

# Seconds of a job besides its training: start, checks of files, prediction and scoring of the held-out cases.
START = 20.0
# Candidates that enter, if the hours allow: so many, and so many for each model.
_CANDIDATES, _OF_A_MODEL = 9, 2
# Jobs may take so much of the time for what is not training.
_MOST_OVERHEAD = 1 / 3
# Models whose frozen encoders are compared before the first rung; fewer are not worth a round.
FEWEST_FROZEN = 3


@dataclass(frozen=True)
class Ladder:
    """first: seconds of a training of level 0. level: of the last rung and of the folds. entered: names, in order."""

    first: float
    level: int
    entered: tuple[str, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """Of the rungs."""
        return tuple(range(self.level - RUNGS + 1, self.level + 1))


def wanted(models: int) -> int:
    """How many candidates should enter."""
    return max(_CANDIDATES, _OF_A_MODEL * models)


def first_fold_seconds(seconds: float, models: int, folds: int) -> float:
    """About how long a training of a fold will be. Raises AutosegError if the jobs would only start and end."""
    for number in range(wanted(models), 1, -1):
        shape = Shape(number, folds)
        if _affordable(shape, seconds):
            return shape.fold_seconds(seconds, START)
    shape = Shape(2, folds)
    raise AutosegError(
        f"even a selection between two candidates in {folds} folds starts {shape.jobs} jobs, which takes "
        f"{shape.jobs * START / 60:.0f} minutes alone",
        f"give more --hours (at least {math.ceil(10 * shape.jobs * START / _MOST_OVERHEAD / 3600) / 10:g})",
    )


def _affordable(shape: Shape, seconds: float) -> bool:
    return shape.jobs * START <= _MOST_OVERHEAD * seconds


def first_ladder(candidates: Sequence[SelectionCandidate], seconds: float, models: int, folds: int) -> Ladder:
    """The most candidates that can finish a training of the first rung, and the longest trainings that fit.

    candidates: in the order in which they are tried. seconds: for all jobs. Raises AutosegError if there are fewer than two.
    """
    frozen = len(frozen_entrants(candidates))
    for number in range(min(wanted(models), len(candidates)), 1, -1):
        shape = Shape(number, folds)
        if not _affordable(shape, seconds):
            continue
        # The frozen round's trainings are as long as those of the first rung.
        extra = frozen * START
        trainings = shape.trainings + frozen / FACTOR ** (RUNGS - 1)
        first = (seconds - shape.jobs * START - extra) / trainings / FACTOR ** (RUNGS - 1)
        able = [one.name for one in candidates if first > 0 and not trials.too_slow(one.step_seconds, first)]
        if len(able) >= number:
            return Ladder(round(first, 1), RUNGS - 1, tuple(able[:number]))
    fastest = sorted(one.step_seconds for one in candidates)[:2]
    first = trials.FEWEST_STEPS * fastest[-1] * 1.2
    needed = Shape(2, folds).seconds(level_seconds(first, RUNGS - 1), START)
    raise AutosegError(
        f"fewer than two candidates can take {trials.FEWEST_STEPS} steps in the first rung",
        f"give more --hours (about {math.ceil(needed / 360) / 10:g}), or --models that are faster",
    )


def longer_ladder(
    state: ModelSelection, candidates: Sequence[SelectionCandidate], seconds: float, models: int, folds: int
) -> Ladder:
    """What is done goes on with more hours: longer trainings if all of them fit in `seconds`, which are left; else more
    candidates; else what there was.
    """
    level = state.level
    desired = min(wanted(models), len(candidates))
    while Shape(desired, folds).seconds(level_seconds(state.first_seconds, level + 1), START) <= seconds:
        level += 1
    first = level_seconds(state.first_seconds, level - RUNGS + 1)
    known = [name for name in state.entered if any(one.name == name for one in candidates)]
    able = [one.name for one in candidates if not trials.too_slow(one.step_seconds, first)]
    order = list(dict.fromkeys([*known, *able]))
    if level > state.level:
        return Ladder(state.first_seconds, level, tuple(order[: max(desired, len(known))]))
    last = level_seconds(state.first_seconds, level)
    done = Shape(max(2, len(known)), folds).seconds(last, START)
    number = len(known)
    for more in range(len(known) + 1, len(order) + 1):
        # The contenders may be others then.
        cost = Shape(more, folds).seconds(last, START) - done + 2 * folds * (last + START)
        number = more if cost <= seconds else number
    return Ladder(state.first_seconds, level, tuple(order[: max(2, number)]))


def hours_for_longer(state: ModelSelection, models: int, folds: int) -> float:
    """Hours in all with which the trainings would become longer."""
    shape = Shape(min(wanted(models), len(state.candidates)), folds)
    return state.spent_hours + shape.seconds(level_seconds(state.first_seconds, state.level + 1), START) / 3600


def frozen_entrants(candidates: Sequence[SelectionCandidate]) -> list[SelectionCandidate]:
    """Each model's frozen encoder with the planned learning rate and the cheapest decoder, a linear one where there is one;
    none if there are too few to compare.
    """
    found: dict[str, SelectionCandidate] = {}
    for one in sorted(candidates, key=lambda one: (one.step_seconds, one.changes)):
        if one.frozen:
            found.setdefault(one.model, one)
    return list(found.values()) if len(found) >= FEWEST_FROZEN else []
