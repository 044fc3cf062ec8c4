"""Limits for archives, checked before anything is unpacked: a file of some kilobytes can hold terabytes."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.support.errors import AutosegError

MAX_MEMBERS = 1_000_000
# Masks without compression shrink to a 300th. What unpacks to less than the second number is never refused.
_MAX_RATIO, _HARMLESS = 500, 1 << 28
_MOST_OF_DISK = 0.9
_BLOCK = 1 << 20
_CHECK = "check where the archive comes from; if you trust it, unpack it by hand"


@dataclass(kw_only=True)
class UnpackingBudget:
    """What an archive of `size` bytes may unpack to, with all archives inside it.

    ratio: of the unpacked size to `size`. harmless: what is never refused, 256 MB by default. spent: bytes so far.
    """

    where: str
    size: int
    ratio: int = _MAX_RATIO
    harmless: int | None = None
    spent: int = 0

    @property
    def limit(self) -> int:
        return max(_HARMLESS if self.harmless is None else self.harmless, self.ratio * self.size)

    def spend(self, count: int, where: str) -> None:
        """Raises AutosegError if `count` more bytes are too many. where: of the archive they come from."""
        self.spent += count
        if self.spent > self.limit:
            raise AutosegError(
                f"{where} would unpack to {self.spent} bytes or more, over {self.limit / max(self.size, 1):.0f} times the "
                f"{self.size} bytes of {self.where}",
                _CHECK,
            )


def check_count(count: int, where: str) -> None:
    """Raises AutosegError for more members than any dataset has."""
    if count > MAX_MEMBERS:
        raise AutosegError(f"{where} holds more than {MAX_MEMBERS} files", _CHECK)


def check_zip(members: Sequence[zipfile.ZipInfo], size: int, where: str, budget: UnpackingBudget) -> None:
    """Check the directory of a zip file of `size` bytes; nothing is unpacked. Raises AutosegError."""
    check_count(len(members), where)
    if sum(member.compress_size for member in members) > size:
        raise AutosegError(f"{where} is damaged or a trap: its members overlap", _CHECK)
    budget.spend(sum(member.file_size for member in members), where)


def expand_gzip(source: Path, target: Path, where: str, budget: UnpackingBudget) -> None:
    """Unpack a gzip file. Raises AutosegError if it is too large, where possible before a byte is written."""
    free = int(_MOST_OF_DISK * shutil.disk_usage(target.parent).free)
    with source.open("rb") as stream:
        # The last four bytes are the unpacked size, modulo 4 GiB, of the last part.
        stream.seek(-min(4, source.stat().st_size), 2)
        declared = int.from_bytes(stream.read(4), "little")
    replace(budget).spend(declared, where)
    written = 0
    with gzip.open(source) as packed, target.open("wb") as plain:
        while block := packed.read(_BLOCK):
            budget.spend(len(block), where)
            written += len(block)
            if written > free:
                raise AutosegError(f"{where} needs more space than {target.parent} has", "set TMPDIR to a larger disk")
            plain.write(block)
