"""Jobs on threads of their own: at once, in the caller's modes, and errors come out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from autoseg.models.layers.side_by_side import one_thread, shares, side_by_side


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("length", "parts"), [(1, 1), (4, 1), (4, 2), (4, 3), (7, 3), (3, 3)])
def test_every_place_belongs_to_one_part(length: int, parts: int) -> None:
    cut = [range(length)[part] for part in shares(length, parts)]
    assert [place for part in cut for place in part] == list(range(length))
    sizes = [len(part) for part in cut]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


def test_jobs_run_at_once_and_alone() -> None:
    together = threading.Barrier(3, timeout=60)
    threads = []

    def meet() -> None:
        threads.append(torch.get_num_threads())
        together.wait()

    side_by_side([meet] * 3)
    assert threads == [1, 1, 1]
    assert torch.get_num_threads() == 3


def test_the_modes_of_the_caller_hold_inside() -> None:
    seen = []

    def look() -> None:
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    side_by_side([look] * 2)
    with torch.inference_mode():
        side_by_side([look] * 2)
    assert seen == [(False, False)] * 2 + [(True, False)] * 2


@pytest.mark.parametrize("others", [0, 1])
def test_what_a_job_raises_is_raised_again(others: int) -> None:
    done = []

    def fail() -> None:
        raise ValueError("this job")

    with pytest.raises(ValueError, match="this job"):
        side_by_side([fail] + [lambda: done.append(1)] * others)
    assert len(done) == others
    assert torch.get_num_threads() == 3


def test_one_thread_gives_back_what_there_was() -> None:
    with pytest.raises(ValueError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise ValueError("inside")
    assert torch.get_num_threads() == 3
