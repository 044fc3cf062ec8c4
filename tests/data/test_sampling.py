from __future__ import annotations

from collections import Counter

import numpy as np

from autoseg.data.sampling import Sample, Sampler, generator, window_start

CASES = [f"c{index}" for index in range(10)]
FEW = np.array([[3, 4], [5, 6]], np.int32)
# All cases except the last have class 1; only the first has class 2, so class 2 is rare.
FOREGROUND = {case: ({1: FEW} if case != "c9" else {}) | ({2: FEW + 20} if case == "c0" else {}) for case in CASES}


def draws(sampler: Sampler, epoch: int) -> list[Sample]:
    order = sampler.order(epoch)
    return [
        sampler.draw(order, step, sample, generator(0, epoch, step, sample))
        for step in range(sampler.steps_per_epoch)
        for sample in range(sampler.batch_size)
    ]


def test_an_epoch_contains_every_case_and_fills_the_last_batch_from_its_beginning():
    sampler = Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=0)
    cases = [item.case for item in draws(sampler, 0)]
    assert sampler.steps_per_epoch == 3 and len(cases) == 12
    assert sorted(cases[:10]) == CASES
    assert cases[10:] == cases[:2]


def test_each_epoch_has_its_own_reproducible_order():
    sampler = Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=0)
    assert draws(sampler, 0) != draws(sampler, 1)
    assert draws(sampler, 1) == draws(Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=0), 1)
    assert draws(sampler, 1) != draws(Sampler(CASES, FOREGROUND, 4, 0.0, True, seed=1), 1)


def test_a_batch_larger_than_the_set_repeats_cases():
    cases = Counter(item.case for item in draws(Sampler(CASES[:3], FOREGROUND, 8, 0.0, True, seed=0), 0))
    assert sorted(cases.values()) == [2, 3, 3]


def test_exactly_the_given_fraction_of_patches_is_centred_on_classes():
    samples = [item for epoch in range(20) for item in draws(Sampler(CASES, FOREGROUND, 5, 0.4, False, seed=0), epoch)]
    centred = [item for item in samples if item.centre is not None]
    assert len(centred) == 0.4 * len(samples)
    rare = [item for item in centred if item.centre[0] >= 20]
    # Each class is chosen half of the time, although only one of ten cases has class 2.
    assert 0.35 < len(rare) / len(centred) < 0.65
    assert {item.case for item in rare} == {"c0"}
    assert all(item.case != "c9" for item in centred)


def test_whole_images_with_a_rare_class_are_more_frequent():
    samples = [item.case for epoch in range(20) for item in draws(Sampler(CASES, FOREGROUND, 5, 0.4, True, seed=0), epoch)]
    share = Counter(samples)["c0"] / len(samples)
    assert 0.4 < share < 0.55
    assert set(samples) == set(CASES)


def test_without_rare_classes_each_whole_image_occurs_once():
    common = {case: {1: FEW} for case in CASES}
    assert sorted(item.case for item in draws(Sampler(CASES, common, 5, 0.4, True, seed=0), 0)) == CASES


def test_cases_without_any_foreground_can_be_sampled():
    empty: dict[str, dict[int, np.ndarray]] = {case: {} for case in CASES}
    for whole in (True, False):
        assert sorted(item.case for item in draws(Sampler(CASES, empty, 5, 0.4, whole, seed=0), 0)) == CASES


def test_generators_differ_for_every_key():
    positions = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    numbers = {generator(*position).random() for position in positions} | {generator(0, 0, 0, 0, purpose=7).random()}
    assert len(numbers) == 6
    assert generator(5, 4, 3, 2).random() == generator(5, 4, 3, 2).random()


def test_windows_stay_inside_and_small_images_are_centred():
    random = np.random.default_rng(0)
    starts = {window_start(20, 16, None, random) for _ in range(100)}
    assert starts == {0, 1, 2, 3, 4}
    assert window_start(20, 16, 0, random) == 0
    assert window_start(20, 16, 19, random) == 4
    assert window_start(100, 16, 50, random) == 42
    assert window_start(11, 16, 5, random) == -2
