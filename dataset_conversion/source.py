"""The files of a source as one list: a folder, an archive, or a folder of archives.

Archives (ZIP, TAR) are read in place; a reader that needs a file gets a temporary one. Members with unsafe paths, links,
encrypted members and members that unpack to far more than an image are refused.
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO

from autoseg.io import is_dangling_image, suffix_of
from autoseg.schema.limits import is_file_name
from autoseg.support.archives import UnpackingBudget, check_count, check_zip, expand_gzip
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_text

MAX_MEMBER_BYTES = 2**32  # a series of volumes stays below
_BOMB_RATIO, _BOMB_SIZE = 1000, 2**28
_LONGEST_PATH = 4096  # as on disk
# The only file of a system whose name holds a control character.
_MAC_ICON = "Icon\r"
_IGNORED = re.compile(r"(^|/)(\.[^/]*|__MACOSX|Thumbs\.db|desktop\.ini|Icon\r)(/|$)", re.IGNORECASE)
_ZIP, _TAR = (".zip",), (".tar", ".tgz")
_UNSUPPORTED = (".rar", ".7z")
_GZIP = b"\x1f\x8b"
_UNREADABLE = "the archive is damaged or cut short: fetch it again"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of a source. name: its path inside, with '/'. where: its path for messages.

    path: the file itself, None inside an archive. stamp: changes with the content (modification
    time or checksum; the content is not read).
    """

    name: str
    where: str
    size: int
    stamp: str
    path: Path | None
    _open: Callable[[], AbstractContextManager[IO[bytes]]] = field(repr=False, compare=False)

    @property
    def suffix(self) -> str:
        """In lower case; `.nii.gz` and `.ppm.gz` are one suffix."""
        last = suffix_of(self.name)
        return suffix_of(self.name[: -len(last)]) + last if last == ".gz" else last

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).name[: -len(self.suffix) or None]

    @property
    def folder(self) -> str:
        """The path inside without the file's name; "" at the top."""
        return self.name.rpartition("/")[0]

    def bytes(self) -> bytes:
        """The content. Raises AutosegError where it cannot be read."""
        try:
            with self._open() as stream:
                content = stream.read(self.size + 1)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise AutosegError(f"{self.where} cannot be read: {error}", _UNREADABLE) from error
        if len(content) != self.size:
            raise AutosegError(f"{self.where} holds {len(content)} bytes instead of {self.size}", _UNREADABLE)
        return content

    def text(self) -> str:
        """The content as text: UTF-8, else Latin-1."""
        content = self.bytes()
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return content.decode("latin-1")

    @contextmanager
    def local(self, *others: Entry) -> Iterator[Path]:
        """A path to the file, with `others` in the same folder, until the block ends; errors name the entry."""
        if self.path is not None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="autoseg_") as folder:
            for entry in (self, *others):
                Path(folder, PurePosixPath(entry.name).name).write_bytes(entry.bytes())
            path = Path(folder, PurePosixPath(self.name).name)
            try:
                yield path
            except AutosegError as error:
                problem = error.problem.replace(str(path), self.where).replace(folder, self.where)
                raise AutosegError(problem, error.remedy) from error


class Source:
    """The files of a folder or archive. Use it in a `with` block, which closes archives."""

    def __init__(self, path: Path) -> None:
        """Raises AutosegError if there are no files, or an archive cannot be read."""
        self.path = path
        self._cleanups: list[Callable[[], None]] = []
        try:
            entries = list(self._walk(path))
        except BaseException:
            self.close()
            raise
        self.entries = tuple(sorted(entries, key=lambda entry: entry.name))
        self._by_name = {entry.name: entry for entry in self.entries}
        if not self.entries:
            self.close()
            raise AutosegError(f"{path} is empty", "give the folder or archive as it was published")

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes archives and removes temporary files."""
        while self._cleanups:
            self._cleanups.pop()()

    def get(self, name: str) -> Entry | None:
        """The file of exactly this name."""
        return self._by_name.get(name)

    def find(self, pattern: str) -> list[tuple[Entry, re.Match[str]]]:
        """Files whose path, or the end of it after a '/', matches a regular expression (case-insensitive)."""
        expression = re.compile(rf"(?:^|.*/)(?:{pattern})$", re.IGNORECASE)
        matches = ((entry, expression.match(entry.name)) for entry in self.entries)
        return [(entry, match) for entry, match in matches if match]

    def find_one(self, pattern: str) -> Entry | None:
        """The only file that matches, None if there is none. Raises AutosegError if there are several."""
        matches = [entry for entry, _ in self.find(pattern)]
        if len(matches) > 1:
            shown = ", ".join(entry.where for entry in matches[:_SHOWN])
            raise AutosegError(f"{self.path} holds {len(matches)} files, expected one: {shown}", "remove the others")
        return matches[0] if matches else None

    def layout_error(self, what: str) -> AutosegError:
        """The error for a source of another layout."""
        shown = ", ".join(entry.name for entry in self.entries[:_SHOWN])
        return AutosegError(
            f"{self.path} holds no {what}; its first files are {shown}",
            "give the folder or archive as it was published; autoseg_convert NAME --help shows its layout",
        )

    def signature(self) -> str:
        """SHA-256 of all names, sizes and stamps; changes when a file changes."""
        return hash_text(*(f"{entry.name}\0{entry.size}\0{entry.stamp}" for entry in self.entries))

    def _walk(self, path: Path) -> Iterator[Entry]:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                inside = file.relative_to(path).as_posix()
                if is_dangling_image(file):
                    raise AutosegError(f"{file} is a link to a file that does not exist", "restore it, or remove the link")
                if not file.is_file() or _IGNORED.search(inside):
                    continue
                if _is_archive(file.name):
                    yield from self._archive(file, f"{_without_suffix(inside)}/", str(file))
                else:
                    yield _file_entry(file, inside)
        elif not path.exists():
            raise AutosegError(f"{path} does not exist", "check the path")
        elif path.suffix.lower() in _UNSUPPORTED:
            raise AutosegError(f"{path} is an archive that autoseg does not read", "unpack it and give the folder")
        elif _is_archive(path.name):
            yield from self._archive(path, "", str(path))
        else:
            yield _file_entry(path, path.name)

    def _archive(self, path: Path, prefix: str, where: str, outer: UnpackingBudget | None = None) -> Iterator[Entry]:
        """outer: of the archive that this one is in."""
        budget = outer or UnpackingBudget(where=where, size=path.stat().st_size)
        read = self._zip if path.suffix.lower() in _ZIP else self._tar
        for entry in read(path, prefix, where, budget):
            if _is_archive(entry.name) and outer is None:
                yield from self._archive(self._unpack_inner(entry), f"{_without_suffix(entry.name)}/", entry.where, budget)
            else:
                yield entry

    def _zip(self, path: Path, prefix: str, where: str, budget: UnpackingBudget) -> Iterator[Entry]:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise AutosegError(f"{where} cannot be read as a ZIP archive: {error}", _UNREADABLE) from error
        self._cleanups.append(archive.close)
        check_zip(archive.infolist(), path.stat().st_size, where, budget)
        for info in archive.infolist():
            name = _safe_name(info.filename, where)
            if info.is_dir() or _IGNORED.search(name):
                continue
            if info.external_attr >> 28 == 0xA:
                raise AutosegError(f"{where}/{name} is a link, which is unsafe", "unpack the archive by hand and check it")
            if info.flag_bits & 1:
                raise AutosegError(f"{where} is encrypted", "unpack it with its password and give the folder")
            is_bomb = info.file_size > _BOMB_SIZE and info.file_size > _BOMB_RATIO * max(info.compress_size, 1)
            if info.file_size > MAX_MEMBER_BYTES or is_bomb:
                raise AutosegError(
                    f"{where}/{name} would unpack to {info.file_size} bytes",
                    "this is too large for an image: check the archive",
                )
            yield Entry(
                name=f"{prefix}{name}",
                where=f"{where}/{name}",
                size=info.file_size,
                stamp=str(info.CRC),
                path=None,
                _open=_Member(archive, info).open,
            )

    def _tar(self, path: Path, prefix: str, where: str, budget: UnpackingBudget) -> Iterator[Entry]:
        try:
            with path.open("rb") as stream:
                packed = stream.read(2) == _GZIP
            # A compressed TAR has no random access, so it is decompressed once.
            plain = self._expand_gzip(path, where, budget) if packed else path
            with tarfile.open(plain, "r:") as archive:
                members = list(_counted(archive, where))
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            raise AutosegError(f"{where} cannot be read as a TAR archive: {error}", _UNREADABLE) from error
        for info in members:
            name = _safe_name(info.name, where)
            if info.isdir() or _IGNORED.search(name):
                continue
            if not info.isreg() or info.issparse():
                raise AutosegError(f"{where}/{name} is a link or device", "unpack the archive by hand and check it")
            place = _Slice(plain, info.offset_data, info.size)
            yield Entry(
                name=f"{prefix}{name}",
                where=f"{where}/{name}",
                size=info.size,
                stamp=f"{place.start} {info.mtime}",
                path=None,
                _open=place.open,
            )

    def _expand_gzip(self, path: Path, where: str, budget: UnpackingBudget) -> Path:
        target = self._temporary_folder() / "expanded.tar"
        expand_gzip(path, target, where, budget)
        return target

    def _unpack_inner(self, entry: Entry) -> Path:
        target = self._temporary_folder() / PurePosixPath(entry.name).name
        target.write_bytes(entry.bytes())
        return target

    def _temporary_folder(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="autoseg_")
        self._cleanups.append(folder.cleanup)
        return Path(folder.name)


@dataclass(frozen=True)
class _Member:
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def open(self) -> AbstractContextManager[IO[bytes]]:
        return self.archive.open(self.info)


@dataclass(frozen=True)
class _Slice:
    """A byte range of a file."""

    path: Path
    start: int
    size: int

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            yield io.BytesIO(stream.read(self.size))


def _counted(archive: tarfile.TarFile, where: str) -> Iterator[tarfile.TarInfo]:
    for number, info in enumerate(archive, 1):
        check_count(number, where)
        yield info


def _file_entry(file: Path, inside: str) -> Entry:
    status = file.stat()
    return Entry(
        name=inside,
        where=str(file),
        size=status.st_size,
        stamp=str(status.st_mtime_ns),
        path=file,
        _open=lambda: file.open("rb"),
    )


def _safe_name(name: str, where: str) -> str:
    """A member's path with '/'. Raises AutosegError if it leads out of the archive."""
    plain = name.replace("\\", "/")
    # Archives of "." begin with it, folders end with '/', and some programs write "a//b".
    parts = [part for part in plain.split("/") if part not in ("", ".", _MAC_ICON)]
    if plain.startswith("/") or len(plain) > _LONGEST_PATH or not all(map(is_file_name, parts)):
        raise AutosegError(f"{where} holds a member with the unsafe path {name!r}", "fetch the archive from its publisher")
    return plain.removeprefix("./")


def _is_archive(name: str) -> bool:
    lower = name.lower()
    return lower.endswith((*_ZIP, *_TAR, ".tar.gz"))


def _without_suffix(name: str) -> str:
    return re.sub(r"\.(zip|tar|tgz|tar\.gz)$", "", name, flags=re.IGNORECASE)
