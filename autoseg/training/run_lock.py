"""One run at a time on a results folder, and a name to the one that holds it.

Whether a process of this host still runs can be seen. Those of other hosts show it by touching the lock now and then: one
that has not for five minutes, by the file system's own clock, is taken to be gone with its machine.
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

NAME = "run.lock"
_PROC = Path("/proc")
_BEAT, _SILENCE = 20.0, 300.0


@dataclass(frozen=True)
class LockOwner:
    """A process. boot and began tell it from a later one with the same number; "" where the system does not say."""

    host: str
    pid: int
    boot: str
    began: str

    @classmethod
    def this(cls) -> LockOwner:
        return cls(socket.gethostname(), os.getpid(), _boot(), _began(os.getpid()))

    @property
    def gone(self) -> bool:
        """Whether it is certain that the process no longer runs. Never certain of other hosts: see `_silent`."""
        if self.host != socket.gethostname():
            return False
        if self.boot != _boot() or not _runs(self.pid):
            return True
        return bool(self.began) and self.began != _began(self.pid)


@dataclass(frozen=True)
class RunLock:
    """A folder that is held."""

    path: Path

    def check(self) -> None:
        """Raise AutosegError where another run took over, as it may when this one's machine was frozen for long."""
        if _read(self.path) != LockOwner.this():
            raise AutosegError(
                f"{self.path.parent} was taken over by another run while this one did not move", "leave it to that run"
            )


def lock_owner(folder: Path) -> LockOwner | None:
    """The process that works on a folder now, None where nobody does."""
    path = folder / NAME
    holder = _read(path)
    return None if holder is None or holder.gone or _silent(path) else holder


@contextmanager
def run_lock(folder: Path) -> Iterator[RunLock]:
    """Hold the folder while the block runs. Raises AutosegError naming host and process where another run holds it.

    The lock of a process that no longer runs is taken over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    while not _take(path):
        holder = _read(path)
        if holder is None and not path.exists():
            continue
        if holder is None or not (holder.gone or _silent(path)):
            who = "a run" if holder is None else f"process {holder.pid} on {holder.host}"
            raise AutosegError(
                f"{folder} is in use by {who}", f"wait for it or stop it; if you are sure that it no longer runs, delete {path}"
            )
        _clear(path)
    over = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, over), daemon=True)
    heart.start()
    try:
        yield RunLock(path)
    finally:
        over.set()
        heart.join()
        if _read(path) == LockOwner.this():
            path.unlink(missing_ok=True)


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(_BEAT):
        with suppress(OSError):
            os.utime(path)


def _silent(path: Path) -> bool:
    """Whether a lock has not been touched for long, seen by the clock of the file system it lies on."""
    probe = path.with_name(f".{NAME}.now.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}")
    with suppress(OSError):
        probe.touch()
        try:
            return probe.stat().st_mtime - path.stat().st_mtime > _SILENCE
        finally:
            probe.unlink(missing_ok=True)
    return False


def _take(path: Path) -> bool:
    """Whether the lock is ours now. It appears with its content, so that nobody reads half of it."""
    beside = path.with_name(f".{NAME}.{socket.gethostname()}.{os.getpid()}")
    beside.write_text(json.dumps(asdict(LockOwner.this())), encoding="utf-8")
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:
        # File systems without hard links: made first, filled after.
        return _take_plainly(path, beside)
    finally:
        beside.unlink(missing_ok=True)
    return True


def _take_plainly(path: Path, beside: Path) -> bool:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(beside.read_text(encoding="utf-8"))
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> LockOwner | None:
    """Who holds it; None where it is gone or unreadable."""
    try:
        return LockOwner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _clear(path: Path) -> None:
    """Remove a stale lock, moving it away first: of several runs that try, one succeeds, and a fresh lock is put back."""
    aside = path.with_name(f".{NAME}.stale.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        holder = _read(aside)
        if holder is not None and not (holder.gone or _silent(aside)):
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    if os.name == "nt":
        # There signal 0 is not a question but Ctrl-C.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat(pid)[:1] != ["Z"]


def _began(pid: int) -> str:
    """When a process began, in clock ticks since the machine did; "" where /proc does not exist."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on."""
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
