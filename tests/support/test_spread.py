"""The same work on many cases, in copies of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoseg.support import copies
from autoseg.support import spread as module
from autoseg.support.errors import AutosegError
from autoseg.support.spread import spread
from tests.support.waiting import runs, seen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a command: three cores, and no other thread."""
    monkeypatch.setattr(module, "may_copy", lambda: True)
    for place in (module, copies):
        monkeypatch.setattr(place, "available_cores", lambda: 3)


def same(work: Callable[[int], object]) -> Callable[[int], Callable[[int], object]]:
    return lambda number: work


def test_results_keep_the_order_of_the_items() -> None:
    def begin(number: int) -> Callable[[int], tuple[int, int]]:
        def work(item: int) -> tuple[int, int]:
            time.sleep(0.05 if item % 7 == 0 else 0.001)
            return item, number

        return work

    found = list(spread(begin, iter(range(60)), 60))
    assert [item for item, _ in found] == list(range(60))
    assert {number for _, number in found} == {0, 1, 2}
    assert list(spread(begin, [], 0)) == []
    assert [item for item, _ in spread(begin, range(2), 2)] == [0, 1]


def test_each_copy_is_a_process_that_begins_once_and_ends(tmp_path: Path) -> None:
    def begin(number: int) -> Callable[[int], int]:
        (tmp_path / f"{number} {os.getpid()}").touch()
        return lambda item: time.sleep(0.005) or os.getpid()

    used = set(spread(begin, range(40), 40))
    begun = dict(path.name.split() for path in tmp_path.iterdir())
    assert set(begun) == {"0", "1", "2"} and used == {int(process) for process in begun.values()}
    assert begun["0"] == str(os.getpid()) and not any(runs(process) for process in used - {os.getpid()})


def test_more_than_a_pipe_holds_comes_whole() -> None:
    found = list(spread(same(lambda item: bytes([item]) * (1 << 20)), range(30), 30))
    assert [(one[0], len(one)) for one in found] == [(item, 1 << 20) for item in range(30)]


def test_no_more_than_a_few_results_wait() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = spread(same(lambda item: item), items(), 1000)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(taken) <= 3 * 8
    results.close()


@pytest.mark.parametrize("failing", [0, 1, 2, 9])
def test_an_error_arrives_at_its_turn(failing: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002)
        if item == failing:
            raise AutosegError(f"case {item}", "mend it")
        return item

    results = spread(same(work), range(50), 50)
    assert [next(results) for _ in range(failing)] == list(range(failing))
    with pytest.raises(AutosegError, match=rf"case {failing}\n.*mend it"):
        next(results)


def test_a_copy_that_was_killed_is_no_riddle() -> None:
    def begin(number: int) -> Callable[[int], int]:
        return lambda item: os.kill(os.getpid(), signal.SIGKILL) if number else time.sleep(0.01) or item

    with pytest.raises(AutosegError, match="ended by SIGKILL"):
        list(spread(begin, range(50), 50))


@pytest.mark.parametrize("mistake", [ZeroDivisionError, EOFError, BrokenPipeError])
def test_a_mistake_of_ours_in_a_copy_is_told_where_it_happens(
    mistake: type[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    def begin(number: int) -> Callable[[int], int]:
        def work(item: int) -> int:
            if number:
                raise mistake
            time.sleep(0.01)
            return item

        return work

    with pytest.raises(RuntimeError, match="stands above"):
        list(spread(begin, range(50), 50))
    assert mistake.__name__ in capfd.readouterr().err


def test_copies_end_when_nobody_wants_their_results_any_more() -> None:
    results = spread(same(lambda item: time.sleep(0.01) or os.getpid()), range(1000), 1000)
    used = {next(results) for _ in range(20)} - {os.getpid()}
    assert len(used) == 2
    results.close()
    assert not any(runs(process) for process in used)


def test_where_there_is_no_room_this_process_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_room)
    assert set(spread(same(lambda item: os.getpid()), range(20), 20)) == {os.getpid()}


@pytest.mark.parametrize("why", ["may not", "one worker", "one item"])
def test_without_copies_threads_do_it(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "may not":
        monkeypatch.setattr(module, "may_copy", lambda: False)
    number = 1 if why == "one item" else 20
    found = list(spread(same(lambda item: (item, os.getpid())), range(number), number, 1 if why == "one worker" else None))
    assert found == [(item, os.getpid()) for item in range(number)]


CODE = """
import os, sys, time
from pathlib import Path
from autoseg.support import workers
workers.available_cores = lambda: 3
from autoseg.support.beside import beside
from autoseg.support.spread import spread
folder, sys.argv[0] = Path(sys.argv[1]), "autoseg_fingerprint"
def begin(number):
    def work(item):
        (folder / str(os.getpid())).touch()
        time.sleep(0.005)
        return number
    return work
def work():
    number = 100_000 if sys.argv[2] == "killed" else 1000
    return list(spread(begin, range(number), number))
with beside(work) as result:
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    time.sleep(0.3)
    print(len(list(folder.iterdir())), flush=True)
    if sys.argv[2] == "killed":
        os._exit(3)
    print(len(set(result())))
"""


def test_within_a_copy_one_core_is_left_to_the_process_it_came_from(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE, str(tmp_path), "whole"], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["2", "3"], "two of three cores, then all"


def test_all_copies_end_with_the_first_process(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", CODE, str(tmp_path), "killed"], check=False, timeout=50).returncode == 3
    processes = [int(path.name) for path in tmp_path.iterdir()]
    assert len(processes) >= 2
    assert seen(lambda: not any(runs(process) for process in processes)), "a copy outlived its process"
