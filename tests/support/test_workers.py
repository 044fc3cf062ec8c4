from __future__ import annotations

import threading
import time

import pytest

from autoseg.support.workers import ordered_map


def test_results_keep_the_order_of_the_items() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(ordered_map(slow_first, range(10), workers=3)) == [i * i for i in range(10)]


def test_no_more_than_a_few_results_wait() -> None:
    begun: list[int] = []
    results = ordered_map(lambda item: begun.append(item) or item, range(100), workers=2, ahead=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= 5


def test_an_error_arrives_and_later_items_are_not_begun() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def fails_at_three(item: int) -> int:
        with lock:
            begun.append(item)
        if item == 3:
            raise ValueError("case 3")
        return item

    with pytest.raises(ValueError, match="case 3"):
        list(ordered_map(fails_at_three, range(1000), workers=2))
    assert max(begun) < 20
