"""Staging folder of a conversion: a hidden folder that is renamed to the dataset when complete, and a journal to resume from.

A killed conversion leaves the folder; the next one with the same key skips the cases in the journal. A conversion that
finds faults leaves nothing.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from autoseg.fingerprint.near_duplicates import Thumbnail
from autoseg.schema import serde
from autoseg.schema.limits import FileName, PathBelow
from autoseg.support.errors import AutosegError
from autoseg.support.files import replace_directory
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)

_JOURNAL = ".journal"
_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """A case that was written. pixels: label value as text -> count; empty without a mask.

    files: below the dataset's folder. thumbnail: see `decoded_thumbnail`.
    """

    name: FileName
    part: FileName
    group: str
    files: tuple[PathBelow, ...]
    pixels: dict[str, int]
    pixel_hash: str
    thumbnail: str
    notes: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def decoded_thumbnail(self) -> Thumbnail | None:
        """(32, 32) thumbnail for comparing images, None for a constant one."""
        if not self.thumbnail:
            return None
        values = np.frombuffer(base64.b64decode(self.thumbnail), np.float16)
        return values.reshape(_SIDE, _SIDE).astype(np.float32)


def encode_thumbnail(thumbnail: Thumbnail | None) -> str:
    """A thumbnail as text, in half precision to keep the journal small."""
    return "" if thumbnail is None else base64.b64encode(thumbnail.astype(np.float16).tobytes()).decode()


class Stage:
    """folder: where to write. completed: cases that an interrupted run has written, by part and name."""

    def __init__(self, folder: Path, journal: IO[str], completed: dict[tuple[str, str], StoredCase]) -> None:
        self.folder = folder
        self.completed = completed
        self._journal = journal

    def record(self, case: StoredCase) -> None:
        """Add a case whose files are written to the journal."""
        with os_errors_as_autoseg_errors(self.folder):
            self._journal.write(json.dumps(asdict(case)) + "\n")
            self._journal.flush()


@contextmanager
def staging_folder(dataset: Dataset, key: str) -> Iterator[Stage]:
    """A staging folder, which becomes the dataset's folder when the block ends without an error.

    key: hash of source and options; "": nothing is resumed. Raises AutosegError if another process writes this dataset.
    """
    folder = dataset.raw.with_name(f".{dataset.name}.partial")
    with os_errors_as_autoseg_errors(dataset.raw):
        folder.mkdir(parents=True, exist_ok=True)
        journal = (folder / _JOURNAL).open("a+", encoding="utf-8")
    with os_errors_as_autoseg_errors(dataset.raw), closing(journal):
        _lock_journal(journal, dataset)
        try:
            completed = _read_completed(folder, journal, key)
            for part in ("imagesTr", "labelsTr"):
                (folder / part).mkdir(exist_ok=True)
            if completed:
                logger.info(f"{dataset.name}: {len(completed)} cases were written by an interrupted run; resuming")
            yield Stage(folder, journal, completed)
        except (AutosegError, OSError):
            with suppress(OSError):  # A full disk.
                journal.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
    with os_errors_as_autoseg_errors(dataset.raw):
        (folder / _JOURNAL).unlink()
        replace_directory(folder, dataset.raw)


def _read_completed(folder: Path, journal: IO[str], key: str) -> dict[tuple[str, str], StoredCase]:
    """Cases that are in the journal and the folder, if the key is the same; everything else in both is removed."""
    journal.seek(0)
    lines = journal.read().splitlines()
    cases: dict[tuple[str, str], StoredCase] = {}
    if key and lines and lines[0] == key:
        for line in lines[1:]:
            try:
                case = serde.from_dict(json.loads(line), StoredCase)
            except ValueError:
                break  # An incomplete last line.
            if all((folder / file).is_file() for file in case.files):
                cases[case.part, case.name] = case
    files_to_keep = {folder / file for case in cases.values() for file in case.files} | {folder / _JOURNAL}
    for path in folder.rglob("*"):
        if path.is_file() and path not in files_to_keep:
            path.unlink()  # Including incomplete files.
    journal.seek(0)
    journal.truncate()
    journal.write(key + "\n")
    journal.writelines(json.dumps(asdict(case)) + "\n" for case in cases.values())
    journal.flush()
    return cases


def _lock_journal(journal: IO[str], dataset: Dataset) -> None:
    """Allow one conversion at a time. The system releases the lock when the process ends."""
    if sys.platform == "win32":
        return  # Windows cannot remove an open file, which stops a second conversion too.
    import fcntl

    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AutosegError(f"{dataset.name} is being written by another process", "wait for it, or stop it") from error
