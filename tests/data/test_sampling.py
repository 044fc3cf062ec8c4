from __future__ import annotations

from collections import Counter

import numpy as np

from autoseg.data.sampling import Sample, Sampler, generator, window_start

CASES = [f"c{index}" for index in range(10)]
FEW = np.array([[3, 4], [5, 6]], np.int32)
# Class 1 in all cases but the last, class 2 in the first only, and so rare.
FOREGROUND = {case: ({1: FEW} if case != "c9" else {}) | ({2: FEW + 20} if case == "c0" else {}) for case in CASES}


def draws(sampler: Sampler, epoch: int) -> list[Sample]:
    order = sampler.order(epoch)
    return [
        sampler.draw(order, step, sample, generator(0, epoch, step, sample))
        for step in range(sampler.steps_per_epoch)
        for sample in range(sampler.batch_size)
    ]


def test_an_epoch_shows_every_case_and_fills_the_last_batch_from_its_beginning():
    sampler = Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=0)
    seen = [draw.case for draw in draws(sampler, 0)]
    assert sampler.steps_per_epoch == 3 and len(seen) == 12
    assert sorted(seen[:10]) == CASES
    assert seen[10:] == seen[:2]


def test_epochs_have_orders_of_their_own_that_can_be_repeated():
    sampler = Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=0)
    assert draws(sampler, 0) != draws(sampler, 1)
    assert draws(sampler, 1) == draws(Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=0), 1)
    assert draws(sampler, 1) != draws(Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=1), 1)


def test_a_batch_larger_than_the_set_repeats_cases():
    seen = Counter(draw.case for draw in draws(Sampler(CASES[:3], FOREGROUND, 8, 0.0, True, seed=0), 0))
    assert sorted(seen.values()) == [2, 3, 3]


def test_patches_are_centred_on_classes_for_exactly_the_share():
    drawn = [draw for epoch in range(20) for draw in draws(Sampler(CASES, FOREGROUND, 5, 0.4, False, seed=0), epoch)]
    centred = [draw for draw in drawn if draw.centre is not None]
    assert len(centred) == 0.4 * len(drawn)
    rare = [draw for draw in centred if draw.centre[0] >= 20]
    # Each class is chosen half of the time, though class 2 is in one case of ten.
    assert 0.35 < len(rare) / len(centred) < 0.65
    assert {draw.case for draw in rare} == {"c0"}
    assert all(draw.case != "c9" for draw in centred)


def test_whole_images_with_a_rare_class_come_more_often():
    drawn = [draw.case for epoch in range(20) for draw in draws(Sampler(CASES, FOREGROUND, 5, 0.4, True, seed=0), epoch)]
    share = Counter(drawn)["c0"] / len(drawn)
    assert 0.4 < share < 0.55
    assert set(drawn) == set(CASES)


def test_without_rare_classes_whole_images_come_once_each():
    common = {case: {1: FEW} for case in CASES}
    assert sorted(draw.case for draw in draws(Sampler(CASES, common, 5, 0.4, True, seed=0), 0)) == CASES


def test_sets_without_any_foreground_can_be_drawn_from():
    empty: dict[str, dict[int, np.ndarray]] = {case: {} for case in CASES}
    for whole in (True, False):
        assert sorted(draw.case for draw in draws(Sampler(CASES, empty, 5, 0.4, whole, seed=0), 0)) == CASES


def test_generators_differ_in_every_place():
    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    numbers = {generator(*place).random() for place in places} | {generator(0, 0, 0, 0, purpose=7).random()}
    assert len(numbers) == 6
    assert generator(5, 4, 3, 2).random() == generator(5, 4, 3, 2).random()


def test_windows_stay_inside_and_small_images_lie_in_the_middle():
    random = np.random.default_rng(0)
    starts = {window_start(20, 16, None, random) for _ in range(100)}
    assert starts == {0, 1, 2, 3, 4}
    assert window_start(20, 16, 0, random) == 0
    assert window_start(20, 16, 19, random) == 4
    assert window_start(100, 16, 50, random) == 42
    assert window_start(11, 16, 5, random) == -2
