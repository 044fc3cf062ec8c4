"""Errors of the file system in words: which file cannot be written or read, why, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoseg.support.errors import AutosegError

_OTHER_FOLDER = "choose a folder that you may write to (--root, -o), or ask its owner for the right"
_DISK = "free some space, or choose a folder on another disk, and run the command again"
# errno -> reason and remedy. Other numbers are not about files.
_REASONS = {
    errno.ENOSPC: ("the disk is full", _DISK),
    errno.EDQUOT: ("the disk quota is used up", _DISK),
    errno.EFBIG: ("the file would be larger than the disk or ulimit -f allows", _DISK),
    errno.EROFS: ("the file system is read-only", _OTHER_FOLDER),
    errno.EACCES: ("permission denied", _OTHER_FOLDER),
    errno.EPERM: ("operation not permitted", _OTHER_FOLDER),
    errno.ENAMETOOLONG: ("the name is too long", "use a shorter name: most file systems allow 255 bytes for a name"),
    errno.EINVAL: ("the file system does not allow this name or operation", "use a plain name, or a folder on another disk"),
    errno.EOPNOTSUPP: ("the file system does not support this", "choose a folder on another disk"),
    errno.ENOENT: ("it does not exist", "check the path, and that no folder of it was moved, deleted or unmounted"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EISDIR: ("there is a folder with this name", "choose another name, or move the folder away"),
    errno.EEXIST: ("there is a file or folder with this name", "choose another name, or move it away"),
    errno.ENOTEMPTY: ("the folder is not empty", "check that no other program writes there, and run the command again"),
    errno.ELOOP: ("links of the path lead in a circle", "check the path"),
    errno.EBUSY: ("another program uses it", "close that program, and run the command again"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n), or use fewer workers"),
    errno.ENFILE: ("too many open files on this machine", "close other programs"),
    errno.EIO: ("the disk reports an error", "check the disk; its log is in dmesg"),
    errno.ESTALE: ("the network drive has lost the file", "check the network drive, and run the command again"),
    errno.ENODEV: ("the disk is not there", "check that it is mounted"),
    errno.ENXIO: ("the disk is not there", "check that it is mounted"),
}
# Reading raises none of these.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}


@contextmanager
def os_errors_as_autoseg_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system, while `path` is written, into an AutosegError. Other errors pass."""
    try:
        yield
    except OSError as error:
        described = file_system_error(error, path)
        if described is None:
            raise
        raise described from error


def file_system_error(error: OSError, path: Path | None = None) -> AutosegError | None:
    """The error in words, None if it is not one of the file system. path: what was written, if known."""
    if error.errno not in _REASONS:
        return None
    reason, remedy = _REASONS[error.errno]
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else None
    if path is not None and (named is None or _belongs_to(named, path)):
        named, verb = path, "write"
        if error.errno == errno.ENOENT:
            reason = "its folder does not exist any more"
    else:
        verb = _verb(error.errno, named)
        if verb == "read" and remedy == _OTHER_FOLDER:
            remedy = "ask its owner for the right to read it"
    if error.errno == errno.ENOSPC and _no_inodes_left(named):
        reason, remedy = "the disk can hold no more files: its inodes are used up", "delete files that are not needed"
    if named is None and error.errno not in _OF_WRITING:
        # Errors that Python's library raises itself, such as a missing folder for temporary files.
        reason = error.strerror or reason
    what = "the output" if named is None else named
    return AutosegError(f"cannot {verb} {what}: {reason}", remedy)


def _belongs_to(named: Path, path: Path) -> bool:
    """Whether a file is `path`, a folder above it, a file inside it, or its temporary file."""
    if named == path or named in path.parents:
        return True
    if path.parent not in named.parents:
        return False
    first = named.relative_to(path.parent).parts[0]
    return first == path.name or first.startswith(f".{path.name[:60]}")


def is_refusal(error: AutosegError) -> bool:
    """Whether nothing could be written because the file system is read-only, or denies it."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def _verb(number: int, named: Path | None) -> str:
    """What failed, as far as the error and the file itself tell: write, read, or either."""
    if number in _OF_WRITING:
        return "write"
    if named is not None and number in (errno.EACCES, errno.EPERM):
        if os.path.lexists(named):
            return "write" if os.access(named, os.R_OK) else "read"
        return "write" if os.access(named.parent, os.R_OK | os.X_OK) else "read or write"
    # A file that is to be written need not exist, but its folder must.
    return "read" if named is not None and number == errno.ENOENT and named.parent.is_dir() else "read or write"


def _no_inodes_left(path: Path | None) -> bool:
    """Whether a disk has bytes left but cannot hold another file."""
    for folder in (path, *path.parents) if path is not None and hasattr(os, "statvfs") else ():
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue
        return disk.f_files > 0 and disk.f_favail == 0 and disk.f_bavail > 0
    return False
