"""Who goes on, and what a selection costs: rules without any training."""

from __future__ import annotations

import math

import pytest

from autoseg.schema.selection import ModelSelection, SelectionCandidate, TriedCandidate
from autoseg.selection import ladder
from autoseg.selection.halving import Shape, decide, entrants, level_seconds
from autoseg.support.errors import AutosegError


def tried(name: str, value: float, seconds: float = 1.0) -> TriedCandidate:
    return TriedCandidate(name=name, value=value, steps=10, seconds=5.0, image_seconds=seconds)


@pytest.mark.parametrize(
    ("candidates", "expected"), [(27, (27, 9, 3)), (12, (12, 4, 2)), (9, (9, 3, 2)), (4, (4, 3, 2)), (2, (2, 2, 2))]
)
def test_a_third_goes_on_and_the_last_rung_has_a_runner_up(candidates: int, expected: tuple[int, ...]) -> None:
    assert entrants(candidates) == expected


@pytest.mark.parametrize(("candidates", "folds"), [(9, 5), (27, 3), (2, 1)])
def test_all_trainings_fit_the_time(candidates: int, folds: int) -> None:
    shape = Shape(candidates, folds)
    last = shape.fold_seconds(3600, 20)
    numbers = entrants(candidates)
    real = sum(number * (last / 3 ** (2 - rung) + 20) for rung, number in enumerate(numbers)) + 3 * folds * (last + 20)
    assert real == pytest.approx(3600) == shape.seconds(last, 20)
    assert level_seconds(last / 9, 2) == pytest.approx(last)


def test_the_best_go_on_and_the_others_are_told_why_they_fell() -> None:
    rung = [tried("c", 0.5), tried("a", 0.9), tried("d", math.nan), tried("b", 0.7)]
    decided = decide(rung, 2, "dice", higher_is_better=True)
    assert [one.name for one in decided] == ["a", "b", "c", "d"]
    assert [bool(one.eliminated) for one in decided] == [False, False, True, True]
    assert decided[2].eliminated == "dice 0.500, place 3 of 4, 2 go on: 0.200 below the last that went on (0.700)"
    assert decided[3].eliminated == "its training failed"


def test_of_equal_candidates_the_faster_goes_on() -> None:
    rung = [tried("slow", 0.8004, 2.0), tried("fast", 0.8001, 1.0), tried("worse", 0.79, 0.1)]
    decided = decide(rung, 1, "dice", higher_is_better=True)
    assert [one.name for one in decided] == ["fast", "slow", "worse"]
    assert "as good, but slower than the last that went on" in decided[1].eliminated


def test_distances_are_better_if_they_are_smaller() -> None:
    decided = decide([tried("far", 9.0), tried("near", 2.0)], 1, "hd95", higher_is_better=False)
    assert decided[0].name == "near" and "7.000 above" in decided[1].eliminated


def test_failed_trainings_never_go_on() -> None:
    decided = decide([tried("a", math.nan), tried("b", 0.1)], 2, "dice", higher_is_better=True)
    assert [(one.name, bool(one.eliminated)) for one in decided] == [("b", False), ("a", True)]


def candidates(seconds: list[float]) -> list[SelectionCandidate]:
    return [
        SelectionCandidate(
            name=f"c{number}", model="unet", family="specialist", variant="16", geometry="resize", input_size=(64, 64),
            learning_rate=1e-3, frozen=False, changes=0, step_seconds=one, settings={},
        )
        for number, one in enumerate(seconds)
    ]  # fmt: skip


def state_of(chosen: ladder.Ladder, own: list[SelectionCandidate], hours: float = 1.0) -> ModelSelection:
    return ModelSelection(
        dataset="Dataset501_A", objective="dice", higher_is_better=True, seed=0, hours=hours, spent_hours=hours,
        content_hash="", splits_hash="", first_seconds=chosen.first, level=chosen.level, entered=chosen.entered,
        default=own[0].name,
        training=(), deciding=(), held_back=(), roles_reason="", candidates=tuple(own),
    )  # fmt: skip


def test_candidates_that_cannot_finish_a_rung_do_not_enter() -> None:
    chosen = ladder.first_ladder(candidates([0.1, 50.0, *[0.2] * 12]), 4 * 3600, 6, 5)
    assert "c1" not in chosen.entered and len(chosen.entered) == 12 and chosen.levels == (0, 1, 2)
    shape = Shape(12, 5)
    assert shape.seconds(level_seconds(chosen.first, 2), ladder.START) == pytest.approx(4 * 3600, rel=0.01)


def test_fewer_candidates_get_longer_trainings_if_many_are_slow() -> None:
    few = ladder.first_ladder(candidates([0.2, 0.3, *[3.5] * 10]), 4 * 3600, 6, 5)
    many = ladder.first_ladder(candidates([0.2] * 12), 4 * 3600, 6, 5)
    assert len(few.entered) < len(many.entered) and few.first > many.first


def test_jobs_that_only_start_and_end_take_a_third_of_the_time_at_most() -> None:
    """Twenty models in an hour: fewer candidates than there would be in a day."""
    own = candidates([0.01] * 60)
    hour, day = (ladder.first_ladder(own, hours * 3600, 20, 5) for hours in (1, 24))
    assert len(day.entered) == 40 and 2 < len(hour.entered) < 40
    assert Shape(len(hour.entered), 5).jobs * ladder.START <= 1200 < Shape(len(hour.entered) + 1, 5).jobs * ladder.START


def test_too_few_hours_are_refused_with_a_number_that_suffices() -> None:
    with pytest.raises(AutosegError, match="fewer than two candidates") as caught:
        ladder.first_ladder(candidates([5.0, 6.0, 7.0]), 1800, 3, 5)
    hours = float(caught.value.remedy.split("about ")[1].split(")")[0])
    assert len(ladder.first_ladder(candidates([5.0, 6.0, 7.0]), hours * 3600, 3, 5).entered) >= 2
    with pytest.raises(AutosegError, match="starts 21 jobs, which takes 7 minutes alone") as caught:
        ladder.first_fold_seconds(500, 3, 5)
    assert "at least 0.4" in caught.value.remedy and ladder.first_fold_seconds(0.4 * 3600, 3, 5) > 0


def test_more_hours_give_longer_trainings_or_more_candidates_or_nothing() -> None:
    own = candidates([0.1] * 12)
    first = ladder.first_ladder(own[:9], 3600, 3, 5)
    before = state_of(first, own[:9])
    left = lambda hours: ladder.longer_ladder(before, own, (hours - 1) * 3600, 3, 5)  # noqa: E731
    same = left(1.1)
    assert (same.level, same.entered) == (2, first.entered)
    more = left(2.0)
    assert more.level == 2 and set(first.entered) < set(more.entered)
    longer = left(ladder.hours_for_longer(before, 3, 5) + 0.01)
    assert longer.levels == (1, 2, 3) and longer.first == first.first and len(longer.entered) == 9
    assert left(ladder.hours_for_longer(before, 3, 5) - 0.1).level == 2
    # What is known stays first, so that its results are used.
    assert more.entered[: len(first.entered)] == first.entered
