"""Atomic files: written to a temporary file in the same folder, flushed, renamed. Also JSON artefacts and hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from autoseg.schema import serde
from autoseg.schema.artefact import Artefact
from autoseg.support.errors import AutosegError

A = TypeVar("A", bound=Artefact)
_MARK_BYTES = 200
# Parts of paths that are no UTF-8 are written as \udc80 to \udcff, which JSON reads back.
ESCAPE = "backslashreplace"


@contextmanager
def os_errors_as_autoseg_errors(path: Path) -> Iterator[None]:
    """Turn the error of a full disk, while `path` is written, into an AutosegError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AutosegError(f"the disk is full: {path} could not be written", "free some space and try again") from error
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder. It replaces `path` if the block succeeds, else it is removed.

    It has the same suffix, since many writers choose the format by it. Raises AutosegError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path, "".join(path.suffixes[-2:]))
    try:
        # With the user's umask; mkstemp would create private files.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        with os_errors_as_autoseg_errors(path):
            yield temporary
            _flush(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, index: str, kind: type[Artefact]) -> Iterator[Path]:
    """The same for a folder: an empty temporary one, which replaces `path` if the block succeeds.

    index, kind: name and kind of the artefact that every folder of this sort holds. Only such a folder, or an empty one, is
    replaced: raises AutosegError for any other, before the block runs.
    """
    _check_replaceable(path, index, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path)
    try:
        temporary.mkdir()
        with os_errors_as_autoseg_errors(path):
            yield temporary
            _check_replaceable(path, index, kind)
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(path: Path, index: str, kind: type[Artefact]) -> None:
    if path.is_symlink():
        raise AutosegError(f"{path} is a link, which is not replaced", "remove the link")
    if path.is_dir() and any(path.iterdir()) and not is_artefact(path / index, kind):
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
    return path.with_name(f".{path.name[:60]}.{os.urandom(4).hex()}{suffix}")
