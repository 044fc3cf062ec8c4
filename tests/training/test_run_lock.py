from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from autoseg.support.errors import AutosegError
from autoseg.training.run_lock import NAME, LockOwner, lock_owner, run_lock


def test_second_run_is_refused_with_the_process_of_the_first(tmp_path):
    with run_lock(tmp_path / "fold"):
        with (
            pytest.raises(AutosegError, match=rf"in use by process {os.getpid()} on {socket.gethostname()}"),
            run_lock(tmp_path / "fold"),
        ):
            pass
        assert (tmp_path / "fold" / NAME).exists()
    assert os.listdir(tmp_path / "fold") == []


def test_lock_is_removed_when_the_run_fails(tmp_path):
    with pytest.raises(RuntimeError), run_lock(tmp_path):
        raise RuntimeError
    with run_lock(tmp_path):
        pass


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = (
        f"import os, signal; from pathlib import Path; from autoseg.training.run_lock import run_lock\n"
        f"with run_lock(Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / NAME).exists()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_later_process_with_the_same_pid_is_not_the_owner(tmp_path):
    if not LockOwner.this_process().boot:
        pytest.skip("this system does not say when a process began")
    (tmp_path / NAME).write_text(json.dumps(asdict(replace(LockOwner.this_process(), began="1"))))
    with run_lock(tmp_path):
        pass


def test_process_of_another_host_counts_as_alive(tmp_path):
    (tmp_path / NAME).write_text(json.dumps(asdict(replace(LockOwner.this_process(), host="elsewhere", pid=2**30))))
    with pytest.raises(AutosegError, match=r"on elsewhere; whether it still runs .*\n.*--break-lock"), run_lock(tmp_path):
        pass


def test_stale_lock_of_another_host_is_taken_over(tmp_path):
    path = tmp_path / NAME
    path.write_text(json.dumps(asdict(replace(LockOwner.this_process(), host="elsewhere", pid=2**30))))
    assert lock_owner(tmp_path) is not None
    now = path.stat().st_mtime
    os.utime(path, (now - 400, now - 400))
    assert lock_owner(tmp_path) is None
    with run_lock(tmp_path) as hold:
        hold.check()
        assert lock_owner(tmp_path) == LockOwner.this_process()
    assert os.listdir(tmp_path) == []


def test_owner_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.training.run_lock._HEARTBEAT", 0.02)
    with run_lock(tmp_path):
        path = tmp_path / NAME
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 0


def test_suspended_run_stops_writing_and_keeps_the_other_runs_lock(tmp_path):
    with run_lock(tmp_path) as hold:
        (tmp_path / NAME).write_text(json.dumps(asdict(replace(LockOwner.this_process(), host="elsewhere"))))
        with pytest.raises(AutosegError, match="taken over by another run"):
            hold.check()
    assert (tmp_path / NAME).exists()


def test_unreadable_lock_is_respected(tmp_path):
    (tmp_path / NAME).write_text("")
    with pytest.raises(AutosegError, match=r"in use by a run; .*\n.*--break-lock"), run_lock(tmp_path):
        pass
