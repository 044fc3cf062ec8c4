"""A raw dataset in the making: a hidden folder that takes its place when it is whole, and a journal to go on from.

A conversion that was killed leaves the folder; the next one of the same files in the same way skips the cases the journal
names. A conversion that finds faults leaves nothing.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from autoseg.fingerprint.near_duplicates import Thumbnail
from autoseg.schema import serde
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)

_JOURNAL = ".journal"
_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """What is kept of a case that was written. pixels: label value, as text -> count; empty without a mask.

    files: below the dataset's folder. thumbnail: see `small`.
    """

    name: str
    part: str
    group: str
    files: tuple[str, ...]
    pixels: dict[str, int]
    pixel_hash: str
    thumbnail: str
    notes: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def small(self) -> Thumbnail | None:
        """(32, 32) for comparing pictures, None for a flat one."""
        if not self.thumbnail:
            return None
        values = np.frombuffer(base64.b64decode(self.thumbnail), np.float16)
        return values.reshape(_SIDE, _SIDE).astype(np.float32)


def packed(small: Thumbnail | None) -> str:
    """A thumbnail as text: halves are exact enough to compare, and a journal of thousands of cases stays small."""
    return "" if small is None else base64.b64encode(small.astype(np.float16).tobytes()).decode()


class Stage:
    """folder: where to write. done: cases that an earlier, broken run has written, by part and name."""

    def __init__(self, folder: Path, journal: IO[str], done: dict[tuple[str, str], StoredCase]) -> None:
        self.folder = folder
        self.done = done
        self._journal = journal

    def keep(self, case: StoredCase) -> None:
        """Notes that the files of a case are there."""
        self._journal.write(json.dumps(asdict(case)) + "\n")
        self._journal.flush()


@contextmanager
def staged(dataset: Dataset, key: str) -> Iterator[Stage]:
    """A stage for the dataset, which becomes its folder when the block ends well.

    key: hash of what is converted and how; "" where that cannot be told, so that nothing is taken over. Raises
    AutosegError where another process is at it.
    """
    folder = dataset.raw.with_name(f".{dataset.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    journal = (folder / _JOURNAL).open("a+", encoding="utf-8")
    with closing(journal):
        _hold(journal, dataset)
        try:
            done = _done(folder, journal, key)
            for part in ("imagesTr", "labelsTr"):
                (folder / part).mkdir(exist_ok=True)
            if done:
                logger.info(f"{dataset.name}: {len(done)} cases were written by a run that broke off; going on from there")
            yield Stage(folder, journal, done)
        except AutosegError:
            journal.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
    (folder / _JOURNAL).unlink()
    if dataset.raw.exists():
        shutil.rmtree(dataset.raw)
    folder.replace(dataset.raw)


def _done(folder: Path, journal: IO[str], key: str) -> dict[tuple[str, str], StoredCase]:
    """What the journal names and the folder holds, if it is of this key; all else in both is removed."""
    journal.seek(0)
    lines = journal.read().splitlines()
    found: dict[tuple[str, str], StoredCase] = {}
    if key and lines and lines[0] == key:
        for line in lines[1:]:
            try:
                case = serde.from_dict(json.loads(line), StoredCase)
            except ValueError:
                break  # The line that was being written when the run broke off.
            if all((folder / file).is_file() for file in case.files):
                found[case.part, case.name] = case
    kept = {folder / file for case in found.values() for file in case.files} | {folder / _JOURNAL}
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()  # Also half a file that was being written.
    journal.seek(0)
    journal.truncate()
    journal.write(key + "\n")
    journal.writelines(json.dumps(asdict(case)) + "\n" for case in found.values())
    journal.flush()
    return found


def _hold(journal: IO[str], dataset: Dataset) -> None:
    """One conversion at a time. The system lets go of the lock when the process ends, however it ends."""
    if sys.platform == "win32":
        return  # There an open file cannot be removed, which stops the second one too.
    import fcntl

    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AutosegError(f"{dataset.name} is being written by another process", "wait for it, or stop it") from error

