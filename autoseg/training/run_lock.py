"""Lock of a results folder: only one run at a time. The lock file names the process that owns it.

For a process of this host the system says whether it still runs. A process on another host touches the lock file regularly:
after five minutes without a touch, by the clock of the file system, it counts as dead.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from autoseg.support.errors import AutosegError
from autoseg.support.os_errors import os_errors_as_autoseg_errors

NAME = "run.lock"
_PROC = Path("/proc")
# Seconds.
_HEARTBEAT, _TIMEOUT = 20.0, 300.0


@dataclass(frozen=True)
class LockOwner:
    """A process. boot and began distinguish it from a later process with the same pid; "" if the system does not say."""

    host: str
    pid: int
    boot: str
    began: str

    @classmethod
    def this_process(cls) -> LockOwner:
        return cls(socket.gethostname(), os.getpid(), _boot_id(), _start_time(os.getpid()))

    @property
    def is_dead(self) -> bool:
        """Whether the process certainly no longer runs. False for other hosts: see `_is_stale`."""
        if self.host != socket.gethostname():
            return False
        if self.boot != _boot_id() or not _is_running(self.pid):
            return True
        return bool(self.began) and self.began != _start_time(self.pid)


@dataclass(frozen=True)
class RunLock:
    """The lock of a folder, owned by this process."""

    path: Path

    def check(self) -> None:
        """Raise AutosegError if another run took over the lock, e.g. after this machine was suspended, or if the folder has
        gone."""
        if not self.path.parent.is_dir():
            raise AutosegError(
                f"cannot write {self.path.parent}: it does not exist any more",
                "put it back where it was, and run the command again",
            )
        if _read_owner(self.path) != LockOwner.this_process():
            raise AutosegError(
                f"{self.path.parent} was taken over by another run while this one was suspended", "let the other run finish"
            )


def lock_owner(folder: Path) -> LockOwner | None:
    """The process that uses a folder now, None if there is none."""
    path = folder / NAME
    owner = _read_owner(path)
    return None if owner is None or owner.is_dead or _is_stale(path) else owner


@contextmanager
def run_lock(folder: Path) -> Iterator[RunLock]:
    """Lock the folder while the block runs. The lock of a dead process is taken over.

    Raises AutosegError naming host and process if another run holds it, and if the lock cannot be written.
    """
    path = folder / NAME
    while not _acquire(path):
        owner = _read_owner(path)
        if owner is None and not path.exists():
            continue
        if owner is None or not (owner.is_dead or _is_stale(path)):
            who = "a run" if owner is None else f"process {owner.pid} on {owner.host}"
            raise AutosegError(
                f"{folder} is in use by {who}", f"wait for it or stop it; if you are sure that it does not run, delete {path}"
            )
        _remove_stale(path)
    stop = threading.Event()
    heartbeat = threading.Thread(target=_touch_regularly, args=(path, stop), daemon=True)
    heartbeat.start()
    try:
        yield RunLock(path)
    finally:
        stop.set()
        heartbeat.join()
        if _read_owner(path) == LockOwner.this_process():
            path.unlink(missing_ok=True)


def _touch_regularly(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        with suppress(OSError):
            os.utime(path)


def _is_stale(path: Path) -> bool:
    """Whether a lock was not touched for `_TIMEOUT` seconds, by the clock of its file system."""
    probe = path.with_name(f".{NAME}.now.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}")
    with suppress(OSError):
        probe.touch()
        try:
            return probe.stat().st_mtime - path.stat().st_mtime > _TIMEOUT
        finally:
            probe.unlink(missing_ok=True)
    return False


def _acquire(path: Path) -> bool:
    """Try to create the lock; whether it worked. The file appears with its full content."""
    temporary = path.with_name(f".{NAME}.{socket.gethostname()}.{os.getpid()}")
    with os_errors_as_autoseg_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(LockOwner.this_process())), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # No hard links on this file system: create the file first, then write it.
        with os_errors_as_autoseg_errors(path):
            return _acquire_without_link(path, temporary)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _acquire_without_link(path: Path, temporary: Path) -> bool:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(temporary.read_text(encoding="utf-8"))
    except FileExistsError:
        return False
    return True


def _read_owner(path: Path) -> LockOwner | None:
    """The owner; None if the lock is missing or unreadable."""
    try:
        return LockOwner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remove_stale(path: Path) -> None:
    """Remove a stale lock. It is renamed first: of several runs only one succeeds, and a lock that is not stale is put back."""
    aside = path.with_name(f".{NAME}.stale.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        owner = _read_owner(aside)
        if owner is not None and not (owner.is_dead or _is_stale(aside)):
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        # On Windows signal 0 is Ctrl-C, not a test.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _proc_stat(pid)[:1] != ["Z"]


def _start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot; "" without /proc."""
    fields = _proc_stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _proc_stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat, starting with the state."""
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
