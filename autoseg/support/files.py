"""Atomic files: written to a temporary file in the same folder, flushed, renamed. Also JSON artefacts and hashes."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from autoseg.schema import serde
from autoseg.schema.artefact import Artefact
from autoseg.support.errors import AutosegError
from autoseg.support.interrupts import held_signals
from autoseg.support.os_errors import os_errors_as_autoseg_errors

_REPLACED = ".replaced"
# Names of `_temporary_path`.
_TEMPORARY = re.compile(r"(\..+?\.)[0-9a-f]{8}(\..*)?")
# Seconds without a change after which a temporary file or folder is of a killed process.
ABANDONED_SECONDS = 3600.0

A = TypeVar("A", bound=Artefact)
_MARK_BYTES = 200
# Parts of paths that are no UTF-8 are written as \udc80 to \udcff, which JSON reads back.
ESCAPE = "backslashreplace"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder. It replaces `path` if the block succeeds, else it is removed.

    It has the same suffix, since many writers choose the format by it. Ctrl-C and SIGTERM are held back meanwhile: keep the
    block short. Raises AutosegError if the file system refuses.
    """
    temporary = _temporary_path(path, "".join(path.suffixes[-2:]))
    with os_errors_as_autoseg_errors(path), held_signals():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # With the user's umask; mkstemp would create private files.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_directory(path: Path, index: str, kind: type[Artefact], names: Collection[str] = ()) -> Iterator[Path]:
    """The same for a folder: an empty temporary one, which replaces `path` if the block succeeds.

    index, kind: name and kind of the artefact that every folder of this sort holds. Only such a folder, or an empty one, is
    replaced: raises AutosegError for any other, before the block runs. Signals are not held back. names: all files of such a
    folder; one that holds exactly these is replaced too, because its index may be damaged.
    """
    _check_replaceable(path, index, kind, names)
    temporary = _temporary_path(path)
    with os_errors_as_autoseg_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            remove_leftovers(path.parent, [path.name], temporary.stat().st_mtime - ABANDONED_SECONDS)
            yield temporary
            _check_replaceable(path, index, kind, names)
            replace_directory(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(new: Path, path: Path) -> None:
    """Move the folder `new` to `path`, on the same disk. A folder that is there is deleted after the new one is in place.

    Meanwhile it is `.<name>.replaced`. If this process is killed between the two moves, `restore_directory` puts it back.
    """
    aside = _aside(path)
    restore_directory(path)
    with held_signals():
        if path.exists():
            path.replace(aside)
        try:
            new.replace(path)
        except OSError:
            restore_directory(path)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def restore_directory(path: Path) -> None:
    """Complete a `replace_directory` that was killed: the older folder is put back if the new one is not in place."""
    aside = _aside(path)
    if not os.path.lexists(aside):
        return
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.replace(path)


def restore_directories(folder: Path) -> None:
    """`restore_directory` for all folders in `folder`."""
    for aside in folder.glob(f".*{_REPLACED}"):
        restore_directory(folder / aside.name.removeprefix(".").removesuffix(_REPLACED))


def remove_leftovers(folder: Path, names: Iterable[str], before: float = math.inf) -> None:
    """Remove temporary files and folders that killed processes left next to these files and folders of `folder`.

    before: only those that were last changed before this time of the file system's clock; by default the caller knows that
    nobody else writes here. What cannot be removed stays.
    """
    beginnings = {_temporary_name(folder / name) for name in names}
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and match[1] in beginnings and _last_change(path) < before:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_replaceable(path: Path, index: str, kind: type[Artefact], names: Collection[str]) -> None:
    if path.is_symlink():
        raise AutosegError(f"{path} is a link, which is not replaced", "remove the link")
    held = {one.name for one in path.iterdir()} if path.is_dir() else set()
    if held and held != set(names) and not is_artefact(path / index, kind):
        raise AutosegError(
            f"{path} holds files, but no {index} of autoseg: a folder that autoseg did not write is not replaced",
            "move it away, or delete it if nobody needs it",
        )
    if path.exists() and not path.is_dir():
        raise AutosegError(f"{path} is a file, where a folder is to be written", "move it away")


def is_artefact(file: Path, kind: type[Artefact]) -> bool:
    """Whether a file begins as an artefact of this kind does. Damage further on does not matter."""
    try:
        with file.open("rb") as stream:
            beginning = stream.read(_MARK_BYTES)
    except OSError:
        return False
    if f'"artefact": "{kind.NAME}"'.encode() in beginning:
        return True
    try:
        read_artefact(file, kind)  # Older releases wrote no mark.
    except AutosegError:
        return False
    return True


def is_utf8(path: Path) -> bool:
    """Whether a path is valid text. Python reads others too, such as old names in Latin-1; OpenCV and SimpleITK crash."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_utf8(path: Path) -> None:
    """Raises AutosegError for a path that is not valid text, before a library that would crash."""
    if not is_utf8(path):
        raise AutosegError(f"{path} is not valid UTF-8", "rename the file or folder")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=ESCAPE)


def write_artefact(path: Path, artefact: Artefact) -> None:
    """Write an artefact as JSON, atomically; the text is streamed."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", errors=ESCAPE) as stream:
        stream.writelines(serde.json_pieces(artefact))


def read_artefact(path: Path, kind: type[A], remedy: str = "") -> A:
    """An artefact from its JSON file; older versions are migrated. Raises AutosegError naming the file and the field."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise AutosegError(f"{path} is missing", remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise AutosegError(f"{path} cannot be read: {error}", remedy) from error
    return parse_artefact(text, kind, str(path), remedy)


def parse_artefact(text: str, kind: type[A], where: str, remedy: str = "") -> A:
    """The same from text. where: its origin, for messages. Raises AutosegError."""
    try:
        return serde.from_json(text, kind)
    except serde.NewerVersionError as error:
        raise AutosegError(f"{where}: {error}", "update autoseg") from error
    except serde.SchemaError as error:
        raise AutosegError(f"{where}: {error}", remedy or "correct the field, or write the file again") from error


def hash_text(*parts: str) -> str:
    """SHA-256 of texts, in hex; the boundaries between texts are part of the hash."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode())
        digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    return _hash_stream(path, hashlib.sha256())


def fast_hash_file(path: Path) -> str:
    """XXH3 of a file's bytes, 128 bits in hex: ten times as fast, but not safe against forged files."""
    return _hash_stream(path, xxhash.xxh3_128())


def _hash_stream(path: Path, digest: Any) -> str:
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(1 << 18):
            digest.update(block)
    hex_digest: str = digest.hexdigest()
    return hex_digest


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _temporary_path(path: Path, suffix: str = "") -> Path:
    """An unused hidden name in the same folder."""
    return path.with_name(f"{_temporary_name(path)}{os.urandom(4).hex()}{suffix}")


def _temporary_name(path: Path) -> str:
    return f".{path.name[:60]}."


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_REPLACED}")


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, was changed; 0 if it has gone meanwhile."""
    try:
        return max(float(one.lstat().st_mtime) for one in (path, *(path.rglob("*") if path.is_dir() else ())))
    except OSError:
        return 0.0
