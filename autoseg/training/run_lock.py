"""Lock of a results folder: only one run at a time. The lock file names the process that owns it.

Process numbers mean the same process only within one start of one machine and one process namespace: containers and cloned
machines may have equal host names. There the system says whether the owner still runs. Every owner also touches the lock
regularly: another one, which may run out of sight, counts as dead after five minutes without a touch, by the clock of the file
system. Until then the folder is refused, unless the user knows better (--break-lock).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from autoseg.support.errors import AutosegError
from autoseg.support.os_errors import os_errors_as_autoseg_errors

logger = logging.getLogger(__name__)

NAME = "run.lock"
_PROC = Path("/proc")
# Seconds.
_HEARTBEAT, _TIMEOUT = 20.0, 300.0


@dataclass(frozen=True, kw_only=True)
class LockOwner:
    """A process. boot: this start of its machine. namespace: of its process number. began: distinguishes it from a later one
    with the same pid. "" if the system does not say."""

    host: str
    pid: int
    boot: str
    began: str
    namespace: str = ""

    @classmethod
    def this_process(cls) -> LockOwner:
        return cls(
            host=socket.gethostname(), pid=os.getpid(), boot=_boot_id(), began=_start_time(os.getpid()), namespace=_namespace()
        )

    @property
    def is_visible(self) -> bool:
        """Whether the system can say if this process runs: it is of this start of this machine, and of our namespace."""
        return (self.host, self.boot, self.namespace) == (socket.gethostname(), _boot_id(), _namespace())

    @property
    def is_dead(self) -> bool:
        """Whether the process certainly no longer runs."""
        if not self.is_visible:
            return False
        began = _start_time(self.pid)  # "" also for processes of other users, where the system hides them.
        return not _is_running(self.pid) or bool(began and self.began and began != self.began)

    @property
    def is_running(self) -> bool:
        """Whether the process certainly runs."""
        return self.is_visible and _is_running(self.pid) and self.began == _start_time(self.pid)


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
    owner = _read_owner(folder / NAME)
    return None if owner is None or _is_free(folder / NAME, owner) else owner


def _is_free(path: Path, owner: LockOwner | None) -> bool:
    """Whether a lock's owner has ended, or is out of sight and has not touched the lock for `_TIMEOUT` seconds."""
    if owner is not None and (owner.is_dead or owner.is_running):
        return owner.is_dead
    return _is_stale(path)


@contextmanager
def run_lock(folder: Path, break_lock: bool = False) -> Iterator[RunLock]:
    """Lock the folder while the block runs. The lock of a dead process is taken over.

    break_lock: also that of a process of which it is not known whether it runs. Raises AutosegError naming host and process if
    another run holds it, and if the lock cannot be written.
    """
    path = folder / NAME
    while not _acquire(path):
        owner = _read_owner(path)
        if owner is None and not path.exists():
            continue
        if break_lock and not (owner is not None and owner.is_running):
            logger.warning(f"the lock of {_describe(owner)} on {folder} is broken")
            path.unlink(missing_ok=True)
            continue
        if not _is_free(path, owner):
            raise _refusal(folder, owner)
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


def _describe(owner: LockOwner | None) -> str:
    return "a run" if owner is None else f"process {owner.pid} on {owner.host}"


def _refusal(folder: Path, owner: LockOwner | None) -> AutosegError:
    problem = f"{folder} is in use by {_describe(owner)}"
    if owner is not None and owner.is_running:
        return AutosegError(problem, "wait for it, or stop it")
    return AutosegError(
        f"{problem}; whether it still runs cannot be seen from here",
        f"wait for it or stop it; it counts as ended after {_TIMEOUT:g} seconds without a sign of life. If you are sure that "
        "it does not run, repeat the command with --break-lock (in Python break_lock=True)",
    )


def _touch_regularly(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        with suppress(OSError):
            os.utime(path)


def _is_stale(path: Path) -> bool:
    """Whether a lock was not touched for `_TIMEOUT` seconds, by the clock of its file system."""
    probe = path.with_name(f".{NAME}.now.{uuid4().hex}")
    with suppress(OSError):
        probe.touch()
        try:
            return probe.stat().st_mtime - path.stat().st_mtime > _TIMEOUT
        finally:
            probe.unlink(missing_ok=True)
    return False


def _acquire(path: Path) -> bool:
    """Try to create the lock; whether it worked. The file appears with its full content."""
    # Not by the process number, which other containers have too.
    temporary = path.with_name(f".{NAME}.{uuid4().hex}")
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
    aside = path.with_name(f".{NAME}.stale.{uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if not _is_free(aside, _read_owner(aside)):
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


def _namespace() -> str:
    """The namespace in which this process has its number."""
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
