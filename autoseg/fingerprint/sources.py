"""The raw files against those that something was made from: sizes and times first, then hashes where these differ."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autoseg.io import Case, RawDataset
from autoseg.schema.serde import to_line
from autoseg.schema.sources import SourceCase, SourceFile, Sources
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import fast_hash_file, hash_text, read_artefact, write_artefact
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Dataset

# Part of every content hash. Increase it when the measurements change: older fingerprints are then made again.
_VERSION = "4"
# A file that changed so shortly before it was recorded may change again within the same tick of the file system's clock.
_TICK = 2_000_000_000
_SHOWN = 20


class ChangedSources(SeveralProblems):
    """The raw files are not those that something was made from."""


def hash_sources(raw: RawDataset, folder: Path, workers: int | None = None, known: Sources | None = None) -> Sources:
    """Size, times and hash of each training image and mask. folder: of the raw dataset.

    known: an earlier result; a file with the same size and times is not read again. Raises AutosegError for a file that cannot
    be read.
    """
    recorded = time.time_ns()
    trusted = {} if known is None else {file.path: file for file in _files(known) if _is_settled(file, known.recorded)}

    def look_at(case: Case) -> SourceCase:
        images = tuple(_look_at(path, folder, trusted) for path in case.images)
        return SourceCase(images, _look_at(case.label, folder, trusted) if case.label else None)

    looked_at = parallel_map(look_at, raw.cases, workers)
    cases = list(progress_bar(looked_at, "hash", len(raw.cases)) if known is None else looked_at)
    # A change of these texts does not invalidate the fingerprint.
    spec = replace(raw.spec, licence="", reference="", description="", numTraining=0)
    # Written as version 1 of dataset.json, so that older fingerprints stay valid.
    description = json.dumps({"schema_version": 1, **json.loads(to_line(spec))}, indent=1, ensure_ascii=False) + "\n"
    parts = (part for case, files in zip(raw.cases, cases, strict=True) for part in (case.name, *_hashes_of(files)))
    return Sources(
        content_hash=hash_text(_VERSION, description, *parts),
        recorded=recorded,
        description=description,
        cases={case.name: files for case, files in zip(raw.cases, cases, strict=True)},
    )


def image_hash(case: SourceCase) -> str:
    """The hash of a case's image file, or of the hashes of its channel files."""
    hashes = [image.hash for image in case.images]
    return hashes[0] if len(hashes) == 1 else hash_text(*hashes)


def check_sources(
    dataset: Dataset, content_hash: str, event: str = "the plan was made", remedy: str = "", raw: RawDataset | None = None
) -> None:
    """Compare the raw files with those that something was made from.

    content_hash: of the raw files then. event: what was done then, for the message. Files with the size and times of
    sources.json are not read; files that are equal byte by byte are never refused, whatever their times. Raises ChangedSources
    that names the changed, missing and new cases.
    """
    raw = raw or RawDataset.open(dataset)
    known = _read_known(dataset, content_hash)
    missing = _missing_files(raw, dataset.raw)
    if not missing:
        now = hash_sources(raw, dataset.raw, known=known)
        if now.content_hash == content_hash:
            if known is None or not all(_is_settled(file, known.recorded) for file in _files(now)):
                _write(dataset, now)
            return
        changes = ["images, masks or dataset.json"] if known is None else list(_changes(known, now, raw))
    else:
        changes = missing
    raise ChangedSources(
        f"{dataset.name} has changed since {event}:", changes, remedy or f"autoseg_plan_and_preprocess {dataset.number}", _SHOWN
    )


def _look_at(path: Path, folder: Path, trusted: dict[str, SourceFile]) -> SourceFile:
    try:
        status = os.stat(path)
        name = os.path.relpath(path, folder) if path.is_relative_to(folder) else str(path)
        before = trusted.get(name)
        size, modified, changed = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if before is not None and (before.size, before.modified, before.changed) == (size, modified, changed):
            return before
        return SourceFile(path=name, size=size, modified=modified, changed=changed, hash=fast_hash_file(path))
    except OSError as error:
        raise AutosegError(f"{error.filename or path} cannot be read: {error.strerror}", "check the file") from error


def _is_settled(file: SourceFile, recorded: int) -> bool:
    """Whether the file was left alone for a while before it was recorded."""
    return max(file.modified, file.changed) < recorded - _TICK


def _files(sources: Sources) -> Iterator[SourceFile]:
    for case in sources.cases.values():
        yield from case.images
        if case.label is not None:
            yield case.label


def _hashes_of(case: SourceCase) -> tuple[str, str]:
    return image_hash(case), case.label.hash if case.label else ""


def _read_known(dataset: Dataset, content_hash: str) -> Sources | None:
    """sources.json, None if it is missing, damaged or of other files than `content_hash`: then all files are read."""
    if not dataset.sources.is_file():
        return None
    try:
        known = read_artefact(dataset.sources, Sources)
    except AutosegError:
        return None
    return known if known.content_hash == content_hash else None


def _missing_files(raw: RawDataset, folder: Path) -> list[str]:
    """Files that dataset.json lists and that do not exist."""
    if not raw.listed:
        return []
    paths = [(case.name, path) for case in raw.cases for path in (*case.images, *([case.label] if case.label else []))]
    return [f"{name}: {path} is missing" for name, path in paths if not path.is_file()]


def _changes(before: Sources, now: Sources, raw: RawDataset) -> Iterator[str]:
    """One line for each case that is new, missing or other, and for dataset.json."""
    for name in sorted(before.cases.keys() | now.cases.keys()):
        old, new = before.cases.get(name), now.cases.get(name)
        if old is None:
            yield f"{name}: a new case"
        elif new is None:
            yield f"{name}: its image {old.images[0].path} is gone"
        else:
            yield from (f"{name}: {change}" for change in _changes_of_case(old, new))
    fields = {key: (json.loads(before.description).get(key), value) for key, value in json.loads(now.description).items()}
    changed = [key for key, (old_value, new_value) in fields.items() if old_value != new_value]
    if changed:
        yield f"dataset.json: {', '.join(changed)}"


def _changes_of_case(old: SourceCase, new: SourceCase) -> Iterator[str]:
    if [image.hash for image in old.images] != [image.hash for image in new.images]:
        other = [file.path for file in new.images if file.hash not in {image.hash for image in old.images}]
        yield f"the image {', '.join(other) or old.images[0].path} has changed"
    if old.label is not None and new.label is None:
        yield f"its mask {old.label.path} is gone"
    elif new.label is not None and (old.label is None or old.label.hash != new.label.hash):
        yield f"the mask {new.label.path} has changed" if old.label else f"the mask {new.label.path} is new"


def _write(dataset: Dataset, sources: Sources) -> None:
    """Record the new times, where the folder can be written: without them all files are read again the next time."""
    try:
        write_artefact(dataset.sources, sources)
    except (OSError, AutosegError):
        return
