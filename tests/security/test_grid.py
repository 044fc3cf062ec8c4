"""Services and workers of a grid that are dead: said at once, by name, with their last words."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoseg import api
from autoseg.cli import run
from autoseg.runner import ray_engine, scheduler
from autoseg.runner.engine import Local, Outcome
from autoseg.runner.jobs import fold_jobs, log_of
from autoseg.runner.process import last_error_line
from autoseg.runner.ray_engine import check_cluster
from autoseg.schema.runner import Job
from autoseg.support.errors import AutosegError
from tests.runner.scripted import ScriptedEngine, job_options, write_planned_dataset

SETTINGS_FRAME = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes(6)


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that answers one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                with listening.accept()[0] as connection:
                    answer(connection)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


def test_a_dead_address_is_said_before_anything_is_planned(
    free_port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--root", str(tmp_path), "--datasets", "501", "--engine", "ray", "--address", free_port]
    assert run.main(arguments) == 2
    message = capsys.readouterr().err
    assert f"no Ray cluster answers at {free_port} (from --address {free_port}): Connection refused" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", [None, "auto"])
def test_the_variable_is_named_if_it_holds_the_dead_address(
    address: str | None, free_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{free_port}")
    with pytest.raises(
        AutosegError, match=rf"at ray://{free_port} \(from the variable RAY_ADDRESS\).*\n.*unset or correct RAY_ADDRESS"
    ):
        api.run(501, engine="ray", address=address)


def test_a_cluster_that_was_noted_and_has_ended(free_port: str, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(free_port)
    with pytest.raises(AutosegError, match=f"no Ray cluster answers at {free_port}"):
        check_cluster("auto")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda connection: connection.recv(1), "no answer within"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "another program answers there"),
        (lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "another program answers there"),
        (lambda connection: connection.close(), "another program answers there|reset"),
    ],
    ids=["silent", "ssh", "http", "closed"],
)
def test_a_server_that_is_not_rays(
    answer: Callable[[socket.socket], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_ANSWER_SECONDS", 0.5)
    waiting = threading.Event()

    def serve(connection: socket.socket) -> None:
        answer(connection)
        waiting.wait(10)

    with server(serve if reason == "no answer within" else answer) as address, pytest.raises(AutosegError, match=reason):
        check_cluster(address)
    waiting.set()


def test_a_name_that_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_ANSWER_SECONDS", 0.1)
    ended = threading.Event()

    def look_up(*arguments: object) -> None:
        ended.wait(20)
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", look_up)
    with pytest.raises(AutosegError, match="at cluster.example:6379 .*no answer within"):
        check_cluster("cluster.example:6379")
    ended.set()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_speaks_as_ray_does_is_used(scheme: str) -> None:
    with server(lambda connection: connection.sendall(SETTINGS_FRAME)) as address:
        assert check_cluster(scheme + address) == scheme + address


def test_without_any_address_a_cluster_is_started() -> None:
    assert check_cluster(None) is None and check_cluster("local") is None and check_cluster("auto") == "auto"


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", "ray://"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(AutosegError, match=r"is no address of a Ray cluster .*\n.*host:port"):
        check_cluster(address)


TORCHRUN = """epoch 3/10  loss 0.5
[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 1, in <module>
[rank0]:     raise ValueError("a bug")
[rank0]: ValueError: a bug
E1130 torch/distributed/elastic/multiprocessing/api.py:882] failed (exitcode: 1) local_rank: 0
Traceback (most recent call last):
  File "run.py", line 7, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
CASES = {
    TORCHRUN: "ValueError: a bug",
    "epoch 1\nerror: one thing\nepoch 2\nerror: the dataset has 2 faults\n  - a\n  - b\n  -> fix them\nbye\n":
        "the dataset has 2 faults - a - b -> fix them",
    "epoch 3/10  loss 0.5\n": "epoch 3/10  loss 0.5",
    "Traceback (most recent call last):\n  File \"a\", line 1\nKeyError: 'x'\n\nDuring handling of the above exception:\n\n"
    "Traceback (most recent call last):\n  File \"b\", line 2\nRuntimeError: outer\n": "RuntimeError: outer",
    "Traceback (most recent call last):\n  File": "File",
    "": "",
}  # fmt: skip


@pytest.mark.parametrize("text", CASES, ids=range(len(CASES)))
def test_the_last_error_of_a_log(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("error: of an earlier attempt\n" + text)
    assert last_error_line(tmp_path / "a.log", start=len("error: of an earlier attempt\n")) == CASES[text]


ENDINGS = {
    Outcome(-9, "node7 4711"): "was killed by SIGKILL, most often because memory has run out; epoch 3/10",
    Outcome(137, "node7 4711"): "was killed by SIGKILL, most often because memory has run out; epoch 3/10",
    Outcome(-11, "node7 4711"): "was killed by SIGSEGV; epoch 3/10",
    Outcome(1, "node7 4711"): "ended with code 1; epoch 3/10",
    Outcome(None, "node7 4711", "the worker was lost"): "was lost with its machine; the worker was lost; epoch 3/10",
}


@pytest.mark.parametrize("outcome", ENDINGS, ids=lambda outcome: str(outcome.code))
def test_a_dead_worker_is_named_with_its_last_line(
    outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler, "_POLL_SECONDS", 0.001)
    jobs = fold_jobs(write_planned_dataset(tmp_path), ["unet"], [0])

    def script(job: Job, attempt: int) -> Outcome:
        log = log_of(tmp_path, job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write("epoch 3/10\n" if attempt == 1 else "")
        return outcome

    with caplog.at_level(logging.WARNING):
        result = scheduler.run_jobs(jobs, job_options(tmp_path), ScriptedEngine(tmp_path, script), retries=1)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"Dataset501_Paper, unet, fold 0 (node7 4711) {ENDINGS[outcome]}: restarting it"
    expected = ENDINGS[outcome].replace("; epoch 3/10", "" if outcome.message else "; it wrote nothing")
    assert result.rows[0].message == expected and f"(node7 4711) failed: {expected}; all of it: " in second


def test_a_real_process_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, log = Local(1), tmp_path / "a.log"
    code = "import os, signal; print('epoch 1/3', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    handle = engine.start([sys.executable, "-c", code], log)
    handle.wait()
    outcome = handle.poll()
    assert outcome is not None and scheduler._ending(outcome.code).startswith("was killed by SIGKILL")
    assert last_error_line(log) == "epoch 1/3" and handle.where.endswith(outcome.where.split()[-1])


def children(inherited: str | None, monkeypatch: pytest.MonkeyPatch, gpus: int, per_run: int) -> list[str]:
    """What two processes of a grid find in the variable, asked in the processes themselves."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    engine = Local(2, gpus, per_run)
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    return [
        subprocess.run(
            [sys.executable, "-c", code], env={**dict(engine._environment(slot))}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for slot in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inherited", "gpus", "per_run", "expected"),
    [
        ("4,5", 2, 1, ["4", "5"]),
        ("4, 5,6,7", 4, 2, ["4,5", "6,7"]),
        ("GPU-8f3a,MIG-11", 2, 1, ["GPU-8f3a", "MIG-11"]),
        ("7,3,5", 3, 1, ["7", "3"]),
        (None, 4, 2, ["0,1", "2,3"]),
    ],
)
def test_jobs_get_the_devices_of_their_parent(
    inherited: str | None, gpus: int, per_run: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert children(inherited, monkeypatch, gpus, per_run) == expected


def test_signals_have_their_names() -> None:
    assert scheduler._ending(-signal.SIGTERM) == scheduler._ending(143) == "was killed by SIGTERM"
    assert scheduler._ending(3) == "ended with code 3"
