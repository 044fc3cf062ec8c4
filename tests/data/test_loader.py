from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from autoseg.data import loader
from autoseg.data.loader import SampleError, TrainLoader, use_processes
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.plan import Augmentation, Normalisation
from autoseg.support.errors import AutosegError
from tests.data.arrays import SCHEME, model_plan, store, training

MIXED = [(40, 50), (64, 64), (30, 90), (70, 33), (50, 50), (80, 60)]


@pytest.fixture
def mixed(tmp_path):
    return store(tmp_path / "mixed", MIXED)


def batches(arrays, workers=1, size=(32, 32), augmentation=None, share=0.5, seed=0, processes=False, **plan):
    settings = training(augmentation or Augmentation(), share)
    return TrainLoader(
        arrays, arrays.cases, model_plan=model_plan(size, **plan), training=settings, scheme=SCHEME, seed=seed,
        workers=workers, processes=processes,
    )  # fmt: skip


def same(ones, others):
    pairs = list(zip(ones, others, strict=True))
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.cases == b.cases for a, b in pairs)


# Changes as between scanners, which `--set augmentation=shift` asks for.
SHIFT = {"p_colour": 0.5, "p_bias": 0.5, "p_sharpen": 0.5, "p_jpeg": 0.5}


@pytest.mark.parametrize(("chain", "more"), [("fast", {}), ("fast", SHIFT), ("classic", {})])
def test_output_does_not_depend_on_the_number_of_threads(mixed, chain, more):
    settings = Augmentation(chain=chain, p_rotation=0.5, p_elastic=0.5, p_noise=0.5, **more)
    with_one_thread = list(batches(mixed, 1, augmentation=settings).epoch(2))
    assert same(with_one_thread, list(batches(mixed, 4, augmentation=settings).epoch(2)))
    assert not same(with_one_thread, list(batches(mixed, 1, augmentation=settings, seed=1).epoch(2)))


@pytest.mark.parametrize("normalisation", ["constant", "image"])
def test_worker_processes_make_the_same_batches(mixed, normalisation):
    """Several epochs through the same processes; one is left in its middle, as when a training is stopped."""
    settings = Augmentation(p_rotation=0.5, p_elastic=0.5, p_noise=0.5, **SHIFT)
    plan = {"batch": 2, "normalisation": Normalisation(scheme=normalisation, mean=(0.0,) * 3, std=(1.0,) * 3)}
    if normalisation == "image":
        plan["normalisation"] = Normalisation(scheme="image")
    threads = batches(mixed, 1, augmentation=settings, **plan)
    processes = batches(mixed, 2, augmentation=settings, processes=True, **plan)
    expected = [list(threads.epoch(epoch)) for epoch in range(3)]
    assert same(expected[0], processes.epoch(0))
    left = processes.epoch(1)
    assert same(expected[1][:1], [next(left)])
    left.close()
    assert same(expected[2][1:], processes.epoch(2, first_step=1))
    (last, *_) = processes.epoch(1)
    if normalisation == "image":
        assert torch.equal(last.statistics, expected[1][0].statistics)


def test_errors_of_a_worker_process_name_the_case(mixed):
    train_loader = batches(mixed, 2, processes=True, batch=2, augmentation=Augmentation(scaling=(0.0, 0.0), p_scaling=1.0))
    with pytest.raises(SampleError, match="case .*epoch 0, step 0"):
        list(train_loader.epoch(0))


def test_an_epoch_can_start_at_any_step(mixed):
    train_loader = batches(mixed, 2, batch=2)
    assert train_loader.steps_per_epoch == 3
    assert same(list(train_loader.epoch(1))[1:], list(train_loader.epoch(1, first_step=1)))
    assert list(train_loader.epoch(1, first_step=3)) == []


@pytest.mark.parametrize(
    ("dtype", "channels", "expected"),
    [
        ("uint8", 3, torch.uint8),
        ("uint16", 1, torch.float32),
        ("float32", 2, torch.float32),
    ],
)
def test_tensors_hold_stored_values(tmp_path, dtype, channels, expected):
    arrays = store(tmp_path / "s", [(32, 32)] * 4, dtype, channels)
    train_loader = TrainLoader(
        arrays,
        arrays.cases,
        model_plan=model_plan((32, 32), 4, channels=channels),
        training=training(),
        scheme=SCHEME,
        seed=0,
        workers=1,
    )
    batch = next(train_loader.epoch(0))
    assert batch.images.shape == (4, channels, 32, 32) and batch.images.dtype == expected
    assert batch.images.is_contiguous() and batch.labels.shape == (4, 32, 32) and batch.labels.dtype == torch.uint8
    for index, case in enumerate(batch.cases):
        assert np.array_equal(batch.images[index].permute(1, 2, 0).numpy(), arrays.image(case))
        assert np.array_equal(batch.labels[index].numpy(), arrays.label(case))


def test_patches_centred_on_a_class_contain_it(tmp_path):
    arrays = store(tmp_path / "s", [(120, 120)] * 6, rare=6)
    all_by_class = training(share=1.0)
    train_loader = TrainLoader(
        arrays, arrays.cases, model_plan=model_plan((16, 16), 6), training=all_by_class, scheme=SCHEME, seed=0, workers=1
    )
    labels = [label for epoch in range(4) for batch in train_loader.epoch(epoch) for label in batch.labels.numpy()]
    values_per_patch = [set(np.unique(label)) for label in labels]
    assert all({1, 2} & values for values in values_per_patch)
    assert any(1 in values for values in values_per_patch) and any(2 in values for values in values_per_patch)


def test_windows_are_not_centred_on_ignored_pixels(tmp_path):
    arrays = store(tmp_path / "s", [(120, 120)] * 6, rare=6)
    ignoring = loader.LabelScheme(names=("background", "common"), members=((0,), (1,)), ignore=2)
    train_loader = TrainLoader(
        arrays,
        arrays.cases,
        model_plan=model_plan((16, 16), 6),
        training=training(share=1.0),
        scheme=ignoring,
        seed=0,
        workers=1,
    )
    assert all((batch.labels == 1).flatten(1).any(1).all() for batch in train_loader.epoch(0))


def test_statistics_are_those_of_the_whole_image(tmp_path):
    arrays = store(tmp_path / "s", [(64, 48)] * 3, "float32", 1)
    per_image = Normalisation(scheme="image")
    train_loader = TrainLoader(
        arrays,
        arrays.cases,
        model_plan=model_plan((16, 16), 3, per_image, channels=1),
        training=training(),
        scheme=SCHEME,
        seed=0,
        workers=1,
    )
    batch = next(train_loader.epoch(0))
    assert batch.statistics is not None and batch.statistics.shape == (3, 2, 1)
    for index, case in enumerate(batch.cases):
        whole = arrays.image(case)
        assert batch.statistics[index, :, 0].tolist() == pytest.approx([whole.mean(), whole.std()], rel=1e-4)
    assert abs(float(normalise(batch.images, per_image, batch.statistics).mean())) > 1e-3
    plain = TrainLoader(
        arrays,
        arrays.cases,
        model_plan=model_plan((16, 16), 3, channels=1),
        training=training(),
        scheme=SCHEME,
        seed=0,
        workers=1,
    )
    assert next(plain.epoch(0)).statistics is None


def test_an_internal_error_names_the_case(mixed, monkeypatch):
    train_loader = batches(mixed, 2)

    def broken(*arguments):
        raise ZeroDivisionError("no way")

    monkeypatch.setattr(train_loader._make, "_chain", broken)
    with pytest.raises(SampleError, match=r"case c0\d .*ZeroDivisionError: no way") as caught:
        list(train_loader.epoch(0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_read_error_names_the_case_and_a_remedy(mixed, monkeypatch):
    train_loader = batches(mixed, 2)
    original = mixed.label

    def broken(case):
        if case == "c03":
            raise OSError("input/output error")
        return original(case)

    monkeypatch.setattr(mixed, "label", broken)
    with pytest.raises(AutosegError, match=r"case c03: .*cannot be read: input/output error\n.*plan_and_preprocess"):
        list(train_loader.epoch(0))


def test_few_batches_are_prefetched_and_closing_ends_the_threads(tmp_path, monkeypatch):
    arrays = store(tmp_path / "s", [(32, 32)] * 40)
    train_loader = batches(arrays, 2, batch=1)
    started: list[int] = []
    original = train_loader._make

    class Counted(type(original)):
        def __call__(self, place):
            started.append(place[1])
            return super().__call__(place)

    monkeypatch.setattr(original, "__class__", Counted)
    before = threading.active_count()
    epoch = train_loader.epoch(0)
    next(epoch)
    time.sleep(0.3)
    assert len(started) <= 6
    epoch.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("device", "cores", "processes"), [("cuda", 16, True), ("cuda", 4, True), ("cuda", 3, False), ("cpu", 16, False)]
)
def test_processes_are_for_gpus_with_enough_cores(device, cores, processes):
    assert use_processes(device, cores) == processes
