"""Work in a copy of the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest

from autoseg.support import beside as module
from autoseg.support import copies
from autoseg.support.beside import beside
from autoseg.support.errors import AutosegError, SeveralProblems
from tests.support.waiting import runs, seen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a command: two cores, and no other thread."""
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr(copies, "is_own", lambda: True)
    monkeypatch.setattr(copies, "alone", lambda: True)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_the_result_comes_from_another_process_that_works_meanwhile(tmp_path: Path) -> None:
    def work() -> int:
        (tmp_path / "begun").touch()
        return os.getpid()

    with beside(work) as result:
        assert seen((tmp_path / "begun").exists), "it was not begun before it was asked for"
        copy = result()
    assert copy != os.getpid() and not runs(copy)


def no_room(*_: object) -> NoReturn:
    raise BlockingIOError(11, "Resource temporarily unavailable")


@pytest.mark.parametrize("name", ["another program", "threads", "PyTorch", "cores", "system", "room"])
def test_where_copying_is_not_safe_or_of_no_use_the_work_is_done_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change: dict[str, Callable[[], None]] = {
        "another program": lambda: monkeypatch.setattr(copies, "is_own", lambda: False),
        "threads": lambda: monkeypatch.setattr(copies, "alone", lambda: False),
        "PyTorch": lambda: monkeypatch.setitem(sys.modules, "torch", sys),
        "cores": lambda: monkeypatch.setattr(module, "available_cores", lambda: 1),
        "system": lambda: monkeypatch.setattr(copies.sys, "platform", "darwin"),
        "room": lambda: monkeypatch.setattr(os, "fork", no_room),
    }
    change[name]()
    with beside(os.getpid) as result:
        assert result() == os.getpid()


def test_a_users_mistake_arrives_whole() -> None:
    def work() -> NoReturn:
        raise SeveralProblems("two faults", ["one", "two"], "mend them")

    with pytest.raises(SeveralProblems, match="mend them") as raised, beside(work) as result:
        result()
    assert raised.value.problems == ("one", "two")


def test_another_error_is_told_where_it_happens(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> NoReturn:
        raise ValueError("a mistake of ours")

    with pytest.raises(RuntimeError, match="stands above"), beside(work) as result:
        result()
    assert "a mistake of ours" in capfd.readouterr().err


def test_one_that_was_killed_is_no_riddle() -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AutosegError, match="ended by SIGKILL"), beside(work) as result:
        result()


def test_one_that_was_killed_while_it_told_its_result_is_none_either() -> None:
    def work() -> bytes:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(4 << 20)  # More than the pipe holds.

    with pytest.raises(AutosegError, match="ended by SIGKILL"), beside(work) as result:
        time.sleep(1)
        result()


def test_a_copy_does_not_wait_for_threads_that_opencv_had_before() -> None:
    picture = np.zeros((2000, 2000), np.uint8)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        cv2.resize(picture, (3000, 3000), interpolation=cv2.INTER_CUBIC)
        time.sleep(0.5)  # After a while its threads wait for more to do, and are waited for when they are to end.

        def work() -> int:
            cv2.setNumThreads(2)
            return len(cv2.resize(picture, (1000, 1000), interpolation=cv2.INTER_CUBIC))

        with beside(work) as result:
            too_long = threading.Timer(20, multiprocessing.active_children()[0].kill)
            too_long.start()
            assert result() == 1000 and cv2.getNumThreads() == 3
            too_long.cancel()
    finally:
        cv2.setNumThreads(before)


def test_what_is_not_waited_for_may_clear_up_and_ends(tmp_path: Path) -> None:
    def work() -> None:
        try:
            (tmp_path / "half").touch()
            time.sleep(60)
        finally:
            (tmp_path / "half").unlink()

    with pytest.raises(ZeroDivisionError), beside(work):
        assert seen((tmp_path / "half").exists)
        raise ZeroDivisionError
    assert not (tmp_path / "half").exists()


def test_it_ends_with_the_process_that_began_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = f"""
import os, sys, time
from pathlib import Path
from autoseg.support import beside as module
module.available_cores = lambda: 2
sys.argv[0] = "autoseg_train"
told = Path({str(told)!r})
def work():
    told.with_name("half").write_text(str(os.getpid()))
    told.with_name("half").rename(told)
    time.sleep(60)
with module.beside(work):
    while not told.exists():
        time.sleep(0.01)
    os._exit(3)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 3
    copy = int(told.read_text())
    assert seen(lambda: not runs(copy)), "the copy outlived its process"


@pytest.mark.parametrize("when", ["before the copy", "in the midst of copying", "and there is no room"])
def test_an_interrupt_is_not_lost(when: str) -> None:
    code = f"""
import os, signal, sys, time
import cv2
from autoseg.support import beside as module
module.available_cores = lambda: 2
sys.argv[0] = "autoseg_train"
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
def no_room():
    interrupt()
    raise BlockingIOError(11, "Resource temporarily unavailable")
if {when!r} == "before the copy":
    cv2.getNumThreads = lambda: interrupt() or 2
elif {when!r} == "and there is no room":
    os.fork = no_room
else:
    os.register_at_fork(before=interrupt)
try:
    with module.beside(lambda: time.sleep(60)):
        print("lost")
except KeyboardInterrupt:
    print("told")
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=50, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("told\n", "")
