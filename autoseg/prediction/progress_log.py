"""The progress of a run, written next to the masks, so that an interrupted run can be resumed.

One line per finished case. prediction.json replaces it at the end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from autoseg.schema import serde
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import ESCAPE, hash_file, read_artefact
from autoseg.support.os_errors import os_errors_as_autoseg_errors

logger = logging.getLogger(__name__)

RECORD = "prediction.json"
UNFINISHED = "prediction.unfinished.jsonl"
# What all masks of a folder have in common.
_SAME = ("identities", "mirror", "postprocessing", "labels")


def finished_cases(folder: Path, run: PredictionRecord) -> dict[str, PredictedCase]:
    """Cases that an earlier run has finished and whose masks are as it wrote them. run: the record of the new run.

    A mask that is missing, empty or another file's is predicted again, with a note.
    Raises AutosegError if the masks in the folder are from other networks or other settings.
    """
    done: dict[str, PredictedCase] = {}
    for earlier in _earlier_runs(folder):
        _check(folder, earlier, run)
        done.update({case.case: case for case in earlier.cases})
    changed = [name for name, case in done.items() if not _is_as_written(folder / case.output, case)]
    if changed:
        names = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        logger.warning(f"{len(changed)} masks in {folder} are not as they were written and are made again: {names}")
    return {name: case for name, case in done.items() if name not in changed}


def _is_as_written(mask: Path, case: PredictedCase) -> bool:
    try:
        return bool(case.mask_sha256) and hash_file(mask) == case.mask_sha256
    except OSError:
        return False


def other_cases(folder: Path, run: PredictionRecord, names: Collection[str]) -> tuple[dict[str, PredictedCase], dict[str, str]]:
    """What earlier runs left in a folder and this run does not predict: cases whose masks exist, and failures.

    run: the record of the new run. names: of its cases. Raises AutosegError if the cases are from other networks or settings:
    one prediction.json cannot describe both.
    """
    cases: dict[str, PredictedCase] = {}
    failed: dict[str, str] = {}
    for earlier in _earlier_runs(folder):
        others = {case.case: case for case in earlier.cases if case.case not in names and (folder / case.output).is_file()}
        different = [field for field in _SAME if getattr(earlier, field) != getattr(run, field)]
        if others and different:
            raise AutosegError(
                f"{folder} holds {len(others)} masks of other networks or settings ({', '.join(different)} differ), such as "
                f"{next(iter(others))}",
                "give another output folder, or delete this one",
            )
        cases |= others
        failed |= {} if different else earlier.failed
    return cases, {case: problem for case, problem in failed.items() if case not in names and case not in cases}


def refuse_foreign_masks(folder: Path, outputs: Iterable[str]) -> None:
    """Raises AutosegError if masks that no run of autoseg wrote, such as references, would be overwritten. outputs: of all
    jobs."""
    if (folder / RECORD).is_file() or (folder / UNFINISHED).is_file():
        return
    existing = next((output for output in outputs if (folder / output).is_file()), None)
    if existing is not None:
        raise AutosegError(
            f"{folder} holds files that autoseg_predict did not write, and {existing} would be overwritten",
            "give another output folder",
        )


def _earlier_runs(folder: Path) -> Iterator[PredictionRecord]:
    """The finished run of a folder, and the interrupted one."""
    if (folder / RECORD).is_file():
        yield read_artefact(folder / RECORD, PredictionRecord, "give another output folder")
    if (folder / UNFINISHED).is_file():
        unfinished = _read_unfinished(folder / UNFINISHED)
        if unfinished is not None:
            yield unfinished


def _read_unfinished(path: Path) -> PredictionRecord | None:
    """The record with its finished cases. None if the run was interrupted before its first line."""
    lines = [line for line in map(_parse_line, path.read_text(encoding="utf-8").splitlines()) if line is not None]
    if not lines:
        return None
    try:
        first, *cases = lines
        for case in cases:
            case.pop("schema_version", None)  # Version 1 had it in every line.
        return serde.from_content({**first, "cases": cases}, PredictionRecord)
    except serde.SchemaError as error:
        raise AutosegError(f"{path}: {error}", "run again without --continue") from error


def _check(folder: Path, earlier: PredictionRecord, run: PredictionRecord) -> None:
    for field in _SAME:
        if getattr(earlier, field) != getattr(run, field):
            raise AutosegError(
                f"{folder} contains masks of another run ({field} differ)",
                "give another output folder, or run again without --continue",
            )


def _parse_line(line: str) -> dict[str, Any] | None:
    """None for a line that was only half written."""
    try:
        content: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return content


class ProgressLog:
    """Written during a run. `finish` deletes it; after an interruption it stays, and the next run resumes from it."""

    def __init__(self, folder: Path, run: PredictionRecord, done: dict[str, PredictedCase]) -> None:
        self._path = folder / UNFINISHED
        with os_errors_as_autoseg_errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._stream: TextIO = self._path.open("w", encoding="utf-8", errors=ESCAPE)
        # One line, like each case.
        self._write_line(json.dumps(json.loads(serde.to_json(run)), ensure_ascii=False))
        for case in done.values():
            self.add(case)

    def add(self, case: PredictedCase) -> None:
        """Record a case. Its mask must be written already."""
        self._write_line(serde.to_line(case))

    def finish(self) -> None:
        """Delete the log. prediction.json must be written already."""
        with os_errors_as_autoseg_errors(self._path):
            self._stream.close()
            self._path.unlink()

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # A full disk; the error of the line that did not fit is on its way.
            self._stream.close()

    def _write_line(self, text: str) -> None:
        with os_errors_as_autoseg_errors(self._path):
            self._stream.write(text + "\n")
            self._stream.flush()
