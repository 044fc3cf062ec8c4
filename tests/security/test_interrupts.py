"""Ctrl-C and SIGTERM while a file is written wait until it is complete, however often they come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.cli import entry
from autoseg.schema.audit import Decisions
from autoseg.schema.run import RunRecord
from autoseg.support import files
from autoseg.support.interrupts import held_signals
from autoseg.support.parallel import parallel_map
from autoseg.training import checkpoint, trainer
from tests.training import tiny
from tests.training.test_train_fold import folder_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
SAVE = torch.save


def interrupt(times: int = 1, number: signal.Signals = signal.SIGINT) -> None:
    for _ in range(times):
        os.kill(os.getpid(), number)
        time.sleep(0.01)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_file_is_complete_when_the_handler_runs(number: signal.Signals, times: int, tmp_path: Path) -> None:
    path, seen = tmp_path / "plan.json", []
    before = signal.signal(number, lambda *_: seen.append(path.read_text()))
    try:
        with files.atomic_write(path) as temporary:
            temporary.write_text("half")
            interrupt(times, number)
            assert not seen
            temporary.write_text("whole")
    finally:
        signal.signal(number, before)
    assert seen and set(seen) == {"whole"} and [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_ctrl_c_is_not_lost_when_the_write_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "plan.json"):
        interrupt()
        raise ValueError("a case that cannot be written, and is passed over")
    assert not list(tmp_path.iterdir())


def test_holds_may_be_nested_and_leave_the_handlers_alone() -> None:
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before, reached = handlers(), []
    with pytest.raises(KeyboardInterrupt), held_signals():
        with held_signals():
            interrupt()
        reached.append("the end of the inner block")
    assert reached and handlers() == before and not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_writers_in_other_threads_are_not_disturbed(tmp_path: Path) -> None:
    writing, sent = threading.Event(), threading.Event()

    def write() -> None:
        with files.atomic_write(tmp_path / "a.txt") as temporary:
            writing.set()
            sent.wait(10)
            temporary.write_text("whole")

    thread = threading.Thread(target=write)
    thread.start()
    writing.wait(10)
    with pytest.raises(KeyboardInterrupt):
        interrupt()
        time.sleep(1)
    sent.set()
    thread.join()
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_folder_is_old_or_new_when_ctrl_c_comes_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "arrays"
    files.write_artefact(folder / "index.json", Decisions("old"))
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if self.is_dir():
            interrupt()
        return replace(self, target)

    with pytest.raises(KeyboardInterrupt), files.atomic_directory(folder, "index.json", Decisions) as temporary:
        files.write_artefact(temporary / "index.json", Decisions("new"))
        monkeypatch.setattr(Path, "replace", interrupted)
    assert files.read_artefact(folder / "index.json", Decisions) == Decisions("new")


def run_command(body: Callable[[Any], int]) -> None:
    raise SystemExit(entry.resumable("the same command resumes")(body)(None))


def in_a_process(log: Path, function: Callable[..., None], *arguments: Any) -> tuple[int, str]:
    """Exit code and output of a function as the command of a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.preload"])
    process = context.Process(target=_enter, args=(log, function, *arguments))
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode, log.read_text()


def _enter(log: Path, function: Callable[..., None], *arguments: Any) -> None:
    # The server, and so its children, block Ctrl-C if it was started for worker processes.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w") as stream:
        sys.stderr = stream
        os.dup2(stream.fileno(), 2)
        function(*arguments)


def train_interrupted_in_a_checkpoint(root: Path, times: int, number: signal.Signals) -> None:
    """The signals come from within torch's writer, as a Ctrl-C does while it writes gigabytes."""

    class Interrupting:
        def __init__(self, stream: Any) -> None:
            self._stream, self._sent = stream, False

        def write(self, data: Any) -> int:
            if not self._sent:
                self._sent = True
                interrupt(times, number)
            return int(self._stream.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    torch.set_num_threads(1)
    tiny.register()
    trainer._SAVE_FRACTION = 1e3  # A checkpoint after each epoch, however short.
    torch.save = lambda content, stream: SAVE(content, Interrupting(stream) if "optimizer" in content else stream)
    run_command(lambda _: 0 if tiny.train(root, handle_signals=True) else 1)


@pytest.mark.parametrize(
    ("number", "times", "code"), [(signal.SIGINT, 2, 130), (signal.SIGINT, 3, 130), (signal.SIGTERM, 2, 143)]
)
def test_signals_in_a_checkpoint_end_the_run_after_it(number: signal.Signals, times: int, code: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    ended, output = in_a_process(tmp_path / "log", train_interrupted_in_a_checkpoint, root, times, number)
    assert (ended, "Traceback" in output) == (code, False), output
    if number == signal.SIGINT:
        assert output.endswith("interrupted: the same command resumes\n")
    folder = folder_of(root)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    progress = checkpoint.read(folder / "last.pt")["progress"]
    record = files.read_artefact(folder / "run.json", RunRecord)
    assert (record.status, record.epochs_done) == ("stopped", progress["epoch"]) and progress["epoch"] > 0
    tiny.register()
    assert tiny.train(root).status == "finished"


def work_interrupted(times: int) -> None:
    threading.Timer(0.5, lambda: interrupt(times)).start()
    run_command(lambda _: len(list(parallel_map(lambda item: time.sleep(0.1), range(100), 2))))


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_while_threads_work_prints_one_line(times: int, tmp_path: Path) -> None:
    ended, output = in_a_process(tmp_path / "log", work_interrupted, times)
    assert (ended, output) == (130, "interrupted: the same command resumes\n")
