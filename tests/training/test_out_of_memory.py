"""Where the memory ends in a training step, the part of the batch is halved and the run goes on."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch

from autoseg.support.errors import AutosegError
from autoseg.training import checkpoint, trainer
from autoseg.training.train_fold import train_fold
from tests.training import tiny
from tests.training.test_step import BATCH, equal, step, weights
from tests.training.test_train_fold import folder_of

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 10 MiB"


class Small(tiny.Tiny):
    """Fits so many images at once. failed: activations of failed passes, as long as anything holds them."""

    capacity = 2

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.failed: list[weakref.ref[torch.Tensor]] = []
        self.alive_at_retry = 0
        self.sizes: list[int] = []

    def segment(self, x):
        self.sizes.append(len(x))
        self.alive_at_retry = max(self.alive_at_retry, sum(one() is not None for one in self.failed))
        # In front of the failure: running statistics of the failed pass must not stay.
        stem = self.stem(x)
        if len(x) > self.capacity:
            self.failed.append(weakref.ref(stem))
            raise torch.OutOfMemoryError(FULL)
        return super().segment(x)


def small(capacity: int) -> Small:
    torch.manual_seed(0)
    network = Small(1, 2, 8)
    network.capacity = capacity
    return network


def test_a_step_that_does_not_fit_gives_what_smaller_parts_give(caplog):
    halved, planned = step(1, network=small(2)), step(2, network=small(4))
    with caplog.at_level(logging.WARNING):
        losses = [[one(BATCH, 1e-2, seed) for seed in range(3)] for one in (halved, planned)]
    assert losses[0] == losses[1] and equal(weights(halved), weights(planned))
    assert halved.network.sizes == [4, 2, 2, 2, 2, 2, 2], "later steps begin with what fits"
    assert halved.accumulate == 2
    (message,) = caplog.messages
    assert "4 images at once" in message and "2" in message and "memory" in message


def test_nothing_of_the_failed_pass_is_alive_while_it_is_tried_again():
    gc.disable()
    try:
        one = step(1, network=small(1))
        assert one(BATCH, 1e-2, 0) is not None
    finally:
        gc.enable()
    assert one.network.sizes[:3] == [4, 2, 1] and one.network.alive_at_retry == 0


def test_a_single_image_that_does_not_fit_is_the_users_to_solve():
    with pytest.raises(AutosegError, match=r"16x16 pixels does not fit.*memory of cpu(?s:.*)--set models\.tiny\.input_size"):
        step(1, network=small(0))(BATCH, 1e-2, 0)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    one = step(1, network=small(4))
    one.network.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("sizes do not match")))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        one(BATCH, 1e-2, 0)


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setattr(tiny, "build", lambda variant, in_channels, num_classes, **_: Small(in_channels, num_classes, 8))
    monkeypatch.setattr(trainer, "_SAVE_FRACTION", 1e3)


def test_a_run_goes_on_with_smaller_parts_and_says_so_in_its_record(tmp_path, small_network, caplog):
    dataset, plan, splits = tiny.prepare(tmp_path)
    plan = tiny.with_model(plan, accumulate=1)
    record = train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu")
    assert record.status == "finished" and record.accumulate == 2
    assert sum("images at once" in message for message in caplog.messages) == 1
    progress = checkpoint.read(folder_of(tmp_path) / "last.pt")["progress"]
    assert progress["accumulate"] == 2, "a resumed run begins with what fitted"
