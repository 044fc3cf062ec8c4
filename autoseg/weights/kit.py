"""A kit: published weights with their records in one archive, to be carried to a machine without a network."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from autoseg.models.published_weights import PublishedWeights
from autoseg.schema import serde
from autoseg.schema.weights import WeightsKit, WeightsRecord
from autoseg.support.archives import UnpackingBudget, check_zip
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import atomic_write, hash_file, parse_artefact
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.weights.catalogue import encoder_entries, entries, parse_request, published_at
from autoseg.weights.store import WeightsFolder, check_content, new_record
from autoseg.weights.verify import check_published

CONTENTS = "kit.json"
_REMEDY = "make it again with autoseg_weights export"
_LARGEST_CONTENTS = 1 << 20
_BLOCK = 1 << 20
# Kits are not compressed.
_MAX_RATIO = 2


def is_kit(path: Path) -> bool:
    """Whether a file is an archive of weights. Checkpoints of PyTorch are archives too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return CONTENTS in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def export_kit(kit: Path, folder: WeightsFolder, requests: Sequence[str]) -> list[WeightsRecord]:
    """Write every published file of the folder, or those of some MODEL or MODEL:VARIANT, to an archive.

    Raises AutosegError if there are none, if a file has changed since it was recorded, or the archive cannot be written.
    """
    chosen = _chosen(folder, requests)
    files = {path: file for path, weights in chosen.items() if (file := folder.find(weights)) is not None}
    if not files:
        raise AutosegError(f"{folder.path} has no published weights to export", "autoseg_weights fetch them first")
    records = [_record(folder, file, chosen[path]) for path, file in files.items()]
    faults = [one.path for one, file in zip(records, files.values(), strict=True) if hash_file(file) != one.sha256]
    if faults:
        raise SeveralProblems("these files have changed since they were recorded:", faults, "autoseg_weights verify")
    with atomic_write(kit) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(CONTENTS, serde.to_json(WeightsKit(files=tuple(records))))
        for record, file in zip(records, files.values(), strict=True):
            archive.write(file, record.path)
    return records


def add_kit(kit: Path, folder: WeightsFolder) -> list[WeightsRecord]:
    """Put every file of an archive into the folder. All are checked before the first is put there.

    Raises AutosegError if the archive is damaged, holds something else than its list says, or files of no known model.
    """
    try:
        with zipfile.ZipFile(kit) as archive:
            size = kit.stat().st_size
            check_zip(archive.infolist(), size, str(kit), UnpackingBudget(where=str(kit), size=size, ratio=_MAX_RATIO))
            records = _read_contents(archive, kit)
            return _take(archive, kit, folder, records)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise AutosegError(f"{kit} is damaged: {error}", "copy it again") from error


def _chosen(folder: WeightsFolder, requests: Sequence[str]) -> dict[str, PublishedWeights]:
    """Path -> published file, of some models; without requests of all, and of the timm encoders in the folder."""
    if not requests:
        encoders = [entry for file in folder.files() for entry in encoder_entries(file)]
        return {entry.weights.path: entry.weights for entry in (*entries(), *encoders)}
    parsed = [parse_request(request) for request in requests]
    return {one.path: one for spec, variant in parsed for one in spec.weights_for(variant, study=True)}


def _record(folder: WeightsFolder, file: Path, weights: PublishedWeights) -> WeightsRecord:
    """What was recorded; for a file put there by hand, what can be said of it now."""
    record = folder.record(file)
    if record is not None:
        return replace(record, path=weights.path)
    return new_record(weights, check_content(file, weights), file.stat().st_size, "put there by hand")


def _read_contents(archive: zipfile.ZipFile, kit: Path) -> tuple[WeightsRecord, ...]:
    """The list of an archive, checked against its entries and the catalogue."""
    names = [info.filename for info in archive.infolist()]
    if names.count(CONTENTS) != 1 or archive.getinfo(CONTENTS).file_size > _LARGEST_CONTENTS:
        raise AutosegError(f"{kit} has no usable {CONTENTS}", _REMEDY)
    contents = parse_artefact(archive.read(CONTENTS).decode("utf-8", "replace"), WeightsKit, f"{kit}: {CONTENTS}", _REMEDY)
    listed, faults = {record.path: record for record in contents.files}, []
    for name in names:
        if name != CONTENTS and (name not in listed or names.count(name) > 1):
            faults.append(f"{name}: not in the list, or more than once in the archive")
    for path, record in listed.items():
        info = archive.getinfo(path) if path in names else None
        if info is None or info.file_size != record.size or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            faults.append(f"{path}: missing, or not stored as it was exported")
        elif not published_at(path):
            faults.append(f"{path}: of no model that is known here (update autoseg)")
    if faults:
        raise SeveralProblems(f"{kit} was not opened:", faults, _REMEDY)
    return contents.files


def _take(
    archive: zipfile.ZipFile, kit: Path, folder: WeightsFolder, records: tuple[WeightsRecord, ...]
) -> list[WeightsRecord]:
    folder.path.mkdir(parents=True, exist_ok=True)
    total, free = sum(record.size for record in records), shutil.disk_usage(folder.path).free
    if total > free:
        raise AutosegError(f"{kit} holds {total:,} bytes, {free:,} are free", "free some space")
    copies = {record.path: folder.path / f"{record.path}.adding" for record in records}
    try:
        for record in records:
            _copy(archive, record, copies[record.path], kit)
        for record in records:
            folder.keep(copies[record.path], record)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
    return list(records)


def _copy(archive: zipfile.ZipFile, record: WeightsRecord, copy: Path, kit: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(record.path) as source, copy.open("wb") as target, os_errors_as_autoseg_errors(copy):
        sha256 = _copy_stream(source, target)
    if sha256 != record.sha256:
        raise AutosegError(f"{kit}: {record.path} is not what was exported (its SHA-256 differs)", "copy the kit again")
    if not sha256.startswith(published_at(record.path)[0].weights.sha256):
        raise AutosegError(f"{kit}: {record.path} is not the published file (its SHA-256 differs)", _REMEDY)
    check_published(copy, record.path)


def _copy_stream(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(_BLOCK):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
