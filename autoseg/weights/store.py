"""The weights folder: `<root>/weights/` with published files, and for each a record of where it came from."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from autoseg.models.published_weights import PublishedWeights
from autoseg.schema.weights import WEIGHTS_SUFFIXES, WeightsRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file, read_artefact, write_artefact

_RECORD = ".json"


@dataclass(frozen=True)
class WeightsFolder:
    """Files of a hub repository lie in a folder of its name, all others at the top."""

    path: Path

    def find(self, weights: PublishedWeights) -> Path | None:
        """A published file, fetched, added, or put there by hand; None if it is not there."""
        return next((self.path / place for place in weights.places if (self.path / place).is_file()), None)

    def files(self) -> Iterator[Path]:
        """Every weights file in the folder, by name. Downloads that are not complete are none."""
        if self.path.is_dir():
            yield from sorted(path for path in self.path.rglob("*") if path.suffix in WEIGHTS_SUFFIXES and path.is_file())

    def record(self, file: Path) -> WeightsRecord | None:
        """What was recorded when the file was put there; None for a file put there by hand. Raises AutosegError."""
        path = record_path(file)
        return read_artefact(path, WeightsRecord, "delete it, then autoseg_weights add the file") if path.is_file() else None

    def keep(self, file: Path, record: WeightsRecord) -> Path:
        """Rename a complete file, already in the folder, to its place, with its record. An earlier file is replaced."""
        target = self.path / record.path
        target.parent.mkdir(parents=True, exist_ok=True)
        record_path(target).unlink(missing_ok=True)
        file.replace(target)
        write_artefact(record_path(target), record)
        return target


def record_path(file: Path) -> Path:
    """Where the record of a weights file lies."""
    return file.with_name(file.name + _RECORD)


def new_record(weights: PublishedWeights, sha256: str, size: int, source: str, revision: str = "") -> WeightsRecord:
    """The record of a file that has just been fetched or added."""
    return WeightsRecord(
        path=weights.path,
        sha256=sha256,
        size=size,
        source=source,
        revision=revision or weights.revision,
        licence=weights.licence,
        trained_on=weights.trained_on,
        added=datetime.now(timezone.utc).date().isoformat(),
    )


def check_content(file: Path, weights: PublishedWeights) -> str:
    """The SHA-256 of a file. Raises AutosegError if size or hash are not those of the published file."""
    name = file.name.removesuffix(".part")
    size, sha256, remedy = file.stat().st_size, hash_file(file), "get it again, or from elsewhere"
    if weights.size and size != weights.size:
        raise AutosegError(f"{name} has {size:,} bytes, the published file {weights.size:,}", remedy)
    if not sha256.startswith(weights.sha256):
        raise AutosegError(
            f"{name} is not the published file: its SHA-256 is {sha256}, that of the published one "
            f"{'begins with ' if len(weights.sha256) < len(sha256) else 'is '}{weights.sha256}",
            remedy,
        )
    return sha256


def file_in_package(weights: PublishedWeights) -> Path | None:
    """The weights file in an installed package. The package is not imported."""
    if not weights.package:
        return None
    try:
        package = importlib.util.find_spec(weights.package)
    except ModuleNotFoundError:
        # The package that it is a part of is not installed.
        return None
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(folder).rglob(Path(weights.file).name)):
            return path
    return None
