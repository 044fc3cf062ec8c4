"""Locks where host names and process numbers repeat: containers on one host, cloned machines that share a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli import run, train
from autoseg.runner.jobs import JobOptions, command_of
from autoseg.schema.runner import Job
from autoseg.support.errors import AutosegError
from autoseg.training import run_lock as module
from autoseg.training.run_lock import NAME, LockOwner, lock_owner, run_lock
from tests.training import tiny
from tests.training.test_train_fold import folder_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="process namespaces of Linux")
DOUBT = r"in use by process \d+ on .*; whether it still runs cannot be seen from here\n.*--break-lock"


def write_lock(folder: Path, age: float = 0.0, **changes: Any) -> None:
    """A lock as another process left it. age: seconds since its last touch."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(json.dumps({**asdict(LockOwner.this_process()), **changes}))
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))


# The process number of the owner is free here, or of another process that was started at another time.
OTHERS = {
    "another container on this host": {"namespace": "pid:[4026532999]", "pid": 1, "began": "7"},
    "a cloned machine": {"boot": "9bb0f4f1-0000-4000-8000-000000000000", "pid": 2**22 + 1},
    "a cloned machine, same process number": {"boot": "9bb0f4f1-0000-4000-8000-000000000000", "began": "7"},
    "a container with the host's processes": {"host": "elsewhere", "pid": 2**22 + 1},
    "a lock of an older release": {"namespace": "", "pid": 2**22 + 1},
    "a machine that was started again": {"boot": "an earlier start", "pid": 2**22 + 1},
}


@pytest.mark.parametrize("owner", OTHERS)
def test_an_owner_out_of_sight_is_respected_until_it_gives_no_sign_of_life(owner: str, tmp_path: Path) -> None:
    write_lock(tmp_path, 200, **OTHERS[owner])
    assert lock_owner(tmp_path) is not None
    with pytest.raises(AutosegError, match=DOUBT), run_lock(tmp_path):
        pass
    with run_lock(tmp_path, break_lock=True) as lock:
        lock.check()
    assert not list(tmp_path.iterdir())
    write_lock(tmp_path, 400, **OTHERS[owner])
    assert lock_owner(tmp_path) is None
    with run_lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_of_a_release_without_namespaces_can_be_read(tmp_path: Path) -> None:
    write_lock(tmp_path)
    content = json.loads((tmp_path / NAME).read_text())
    del content["namespace"]
    (tmp_path / NAME).write_text(json.dumps(content))
    with pytest.raises(AutosegError, match=DOUBT), run_lock(tmp_path):
        pass


def test_a_process_that_certainly_runs_keeps_its_lock(tmp_path: Path) -> None:
    """Also if it did not touch it for long: a machine that was suspended touches its locks some seconds after it wakes up."""
    write_lock(tmp_path, 1e6)
    for break_lock in (False, True):
        refused = pytest.raises(AutosegError, match=rf"in use by process {os.getpid()} on .*\n  -> wait for it, or stop it$")
        with refused, run_lock(tmp_path, break_lock):
            pass


def test_a_process_that_the_system_hides_is_not_called_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc mounted with hidepid shows no process of other users."""
    write_lock(tmp_path, began="7")
    monkeypatch.setattr(module, "_start_time", lambda pid: "")
    with pytest.raises(AutosegError, match=DOUBT), run_lock(tmp_path):
        pass


def test_containers_that_start_at_once_do_not_share_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees itself as process 1 of one host: one of them gets the lock, and the content is its own."""
    spaces = {number: f"pid:[{number}]" for number in range(8)}
    local = threading.local()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(module, "_namespace", lambda: spaces[local.number])
    got: list[str] = []
    together = threading.Barrier(len(spaces))

    def acquire(number: int) -> None:
        local.number = number
        together.wait()
        if module._acquire(tmp_path / NAME):
            got.append(spaces[number])

    threads = [threading.Thread(target=acquire, args=(number,)) for number in spaces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and json.loads((tmp_path / NAME).read_text())["namespace"] == got[0]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rpf", "true"], check=False, capture_output=True).returncode != 0, reason="unshare"
)
def test_a_real_process_in_another_namespace_is_respected(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from autoseg.training.run_lock import run_lock\n"
        f"with run_lock(Path({str(tmp_path)!r})): print('locked', flush=True); sys.stdin.read()"
    )
    command = ["unshare", "-rpf", "--mount-proc", sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(AutosegError, match=DOUBT), run_lock(tmp_path):
            pass
        other.communicate("")
    with run_lock(tmp_path):
        pass


def test_a_training_breaks_the_lock_when_it_is_told_to(tmp_path: Path) -> None:
    tiny.register()
    tiny.prepare(tmp_path)
    write_lock(folder_of(tmp_path), **OTHERS["another container on this host"])
    with pytest.raises(AutosegError, match=DOUBT):
        tiny.train(tmp_path)
    assert tiny.train(tmp_path, break_lock=True).status == "finished"


@pytest.mark.parametrize("main", [train.main, run.main])
def test_the_commands_have_the_option(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--break-lock" in capsys.readouterr().out


def test_a_grid_hands_the_option_on_to_its_trainings(tmp_path: Path) -> None:
    options = JobOptions(root=tmp_path, break_lock=True)
    assert "--break-lock" in command_of(Job("Dataset501_X", "unet", 0), options)
    assert "--break-lock" not in command_of(Job("Dataset501_X", "unet", 0), replace(options, break_lock=False))
    assert "--break-lock" not in command_of(Job("Dataset501_X", "unet", -1), options)
