from __future__ import annotations

import threading
import time

import pytest

from autoseg.support import workers
from autoseg.support.workers import ordered_map

EITHER = pytest.mark.parametrize(("workers", "here"), [(1, False), (1, True), (3, False), (3, True)])


@EITHER
def test_results_keep_the_order_of_the_items(workers: int, here: bool) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(ordered_map(slow_first, range(50), workers, here=here)) == [i * i for i in range(50)]
    assert list(ordered_map(slow_first, [], workers, here=here)) == []


@EITHER
def test_as_many_threads_work_as_were_asked_for(workers: int, here: bool) -> None:
    names: set[str] = set()
    together = threading.Barrier(workers)

    def name(item: int) -> None:
        if item == 0:
            time.sleep(0.05)
            return
        names.add(threading.current_thread().name)
        together.wait(10)

    list(ordered_map(name, range(1 + 4 * workers), workers, here=here))
    assert len(names) == workers
    assert (threading.current_thread().name in names) == here


def test_what_is_done_at_once_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "perf_counter", lambda: 0.0)  # However busy the machine is.
    names = set(ordered_map(lambda item: threading.current_thread().name, range(100), 3, here=True))
    assert names == {threading.current_thread().name}


@pytest.mark.parametrize("here", [False, True])
def test_no_more_than_a_few_results_wait(here: bool) -> None:
    begun: list[int] = []
    results = ordered_map(lambda item: begun.append(item) or item, range(100), workers=2, ahead=2, here=here)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= 5


@EITHER
def test_an_error_arrives_and_later_items_are_not_begun(workers: int, here: bool) -> None:
    begun: list[int] = []

    def fails_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("case 3")
        return item

    results = ordered_map(fails_at_three, range(1000), workers, here=here)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="case 3"):
        next(results)
    assert max(begun) < 20


def test_an_interruption_does_not_wait_for_its_turn() -> None:
    release = threading.Event()

    def work(item: int) -> None:
        if threading.current_thread() is threading.main_thread():
            release.set()
            raise KeyboardInterrupt
        release.wait(10)

    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(work, range(10), workers=2, here=True))


@EITHER
def test_threads_end_with_it_even_if_results_are_left(workers: int, here: bool) -> None:
    before = threading.active_count()
    results = ordered_map(lambda item: item, range(100), workers, here=here)
    next(results)
    results.close()
    assert threading.active_count() == before
