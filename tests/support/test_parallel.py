"""The same function on many items, over threads or processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import pytest

from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.parallel import parallel_map, should_use_processes
from tests.support.waiting import runs, seen

BOTH = pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def square(item: int) -> int:
    time.sleep(0.05 if item == 0 else 0)
    return item * item


def fail_at(failing: int, item: int) -> int:
    if item == failing:
        raise SeveralProblems("two faults", [f"case {item}", "another"], "fix them")
    return item


def fail_plainly(item: int) -> int:
    raise ValueError(f"a bug met in {item}")


def die_at(dying: int, item: int) -> int:
    time.sleep(0.02)
    if item == dying:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def setting_of_worker(item: int) -> tuple[int, int]:
    return os.getpid(), cv2.getNumThreads()


def touch(folder: Path, item: int) -> int:
    (folder / str(item)).touch()
    return item


def fail_or_touch(folder: Path, item: int) -> None:
    time.sleep(0.02)
    if item == 0:
        raise AutosegError("case 0 is broken")
    touch(folder, item)


@BOTH
@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_the_items(workers: int, processes: bool) -> None:
    assert list(parallel_map(square, iter(range(50)), workers, processes=processes)) == [item * item for item in range(50)]
    assert list(parallel_map(square, [], workers, processes=processes)) == []


def test_as_many_threads_work_as_were_asked_for() -> None:
    together = threading.Barrier(3)
    assert len(list(parallel_map(lambda item: together.wait(10), range(12), 3))) == 12


@BOTH
def test_few_items_are_begun_before_their_results_are_wanted(tmp_path: Path, processes: bool) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = parallel_map(partial(touch, tmp_path), items(), 2, prefetch=3, processes=processes)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(taken) <= 6 and next(results) == 1
    results.close()
    assert len(list(tmp_path.iterdir())) <= 8


@BOTH
def test_an_error_arrives_whole_and_at_its_turn(processes: bool) -> None:
    results = parallel_map(partial(fail_at, 9), range(50), 2, processes=processes)
    assert [next(results) for _ in range(9)] == list(range(9))
    with pytest.raises(SeveralProblems, match="fix them") as raised:
        next(results)
    assert raised.value.problems == ("case 9", "another")


@BOTH
def test_after_an_error_later_items_are_cancelled(tmp_path: Path, processes: bool) -> None:
    with pytest.raises(AutosegError, match="case 0"):
        list(parallel_map(partial(fail_or_touch, tmp_path), range(200), 2, prefetch=100, processes=processes))
    done = len(list(tmp_path.iterdir()))
    time.sleep(0.2)
    assert done < 100 and len(list(tmp_path.iterdir())) == done


def test_a_bug_in_a_worker_process_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="a bug met in 0") as raised:
        list(parallel_map(fail_plainly, range(5), 2, processes=True))
    assert "fail_plainly" in str(raised.value.__cause__)


@LINUX
@pytest.mark.parametrize("dying", [0, 7, 19])
def test_a_killed_worker_names_the_cases_it_may_have_worked_on(dying: int) -> None:
    results = parallel_map(partial(die_at, dying), range(20), 2, processes=True, name=lambda item: f"case{item:03}")
    with pytest.raises(AutosegError, match=f"worker process was killed .*case{dying:03}.*\n.*memory") as raised:
        list(results)
    assert raised.value.problem.count("case") <= 2


@LINUX
def test_a_worker_that_python_forgets_to_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python before 3.12 does not end a worker that starts while another one is killed."""
    monkeypatch.setattr("multiprocessing.process.BaseProcess.terminate", lambda process: None)
    monkeypatch.setattr("concurrent.futures.process._ExecutorManagerThread.shutdown_workers", lambda thread: None)
    errors: list[AutosegError] = []

    def work() -> None:
        try:
            list(parallel_map(partial(die_at, 3), range(20), 2, processes=True))
        except AutosegError as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert len(errors) == 1 and not thread.is_alive()


@LINUX
def test_worker_processes_use_one_opencv_thread_and_end_with_the_results() -> None:
    settings = set(parallel_map(setting_of_worker, range(40), 2, processes=True))
    assert {threads for _, threads in settings} == {1}
    assert os.getpid() not in {process for process, _ in settings}
    assert seen(lambda: not any(runs(process) for process, _ in settings))


def test_the_programs_own_opencv_threads_are_left_alone() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        assert {threads for _, threads in parallel_map(setting_of_worker, range(10), 2)} == {3}
        assert {threads for _, threads in parallel_map(setting_of_worker, range(10), 2, processes=True)} == {1}
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_few_items_are_not_worth_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.support.parallel.available_cores", lambda: 4)
    assert not should_use_processes(200) and should_use_processes(100_000)
    monkeypatch.setattr("autoseg.support.parallel.available_cores", lambda: 1)
    assert not should_use_processes(100_000)


SCRIPT = """
import sys
from pathlib import Path
from autoseg.support.parallel import parallel_map
from tests.support.test_parallel import wait_long
for _ in parallel_map(wait_long, [Path(sys.argv[1], str(number)) for number in range(50)], 2, processes=True):
    pass
"""


def wait_long(path: Path) -> None:
    path.with_suffix(".half").write_text(str(os.getpid()))
    path.with_suffix(".half").rename(path)
    time.sleep(60)


@LINUX
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, end: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.DEVNULL)
    assert seen(lambda: len(list(tmp_path.glob("[0-9]"))) == 2), "no worker began"
    workers = [int(path.read_text()) for path in tmp_path.glob("[0-9]")]
    parent.send_signal(end)
    parent.wait(10)
    assert seen(lambda: not any(map(runs, workers))), "a worker outlived its parent"
