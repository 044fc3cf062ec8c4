"""What a run has done so far, beside the masks, so that a killed run can be gone on with.

A line is added as each case is done; at the end prediction.json takes its place.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from autoseg.schema import serde
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact

RECORD = "prediction.json"
UNFINISHED = "prediction.unfinished.jsonl"


def known_cases(folder: Path, run: PredictionRecord) -> dict[str, PredictedCase]:
    """Cases an earlier run of the same kind has done and whose masks are there. run: what is about to be made.

    Raises AutosegError where the folder holds masks of other networks, or masks made another way.
    """
    done: dict[str, PredictedCase] = {}
    if (folder / RECORD).is_file():
        earlier = read_artefact(folder / RECORD, PredictionRecord, "give another output folder")
        _check(folder, earlier, run)
        done.update({case.case: case for case in earlier.cases})
    if (folder / UNFINISHED).is_file():
        unfinished = _unfinished(folder / UNFINISHED)
        if unfinished is not None:
            _check(folder, unfinished, run)
            done.update({case.case: case for case in unfinished.cases})
    return {name: case for name, case in done.items() if (folder / case.output).is_file()}


def _unfinished(path: Path) -> PredictionRecord | None:
    """The record with the cases that were done; None where a run was killed before its first line was written."""
    lines = [line for line in map(_parsed, path.read_text(encoding="utf-8").splitlines()) if line is not None]
    if not lines:
        return None
    try:
        first, *cases = lines
        for case in cases:
            case.pop("schema_version", None)  # Version 1 had it in every line.
        return serde.from_content({**first, "cases": cases}, PredictionRecord)
    except serde.SchemaError as error:
        raise AutosegError(f"{path}: {error}", "make all masks again without --continue") from error


def _check(folder: Path, earlier: PredictionRecord, run: PredictionRecord) -> None:
    for what in ("identities", "mirror", "postprocessing", "labels"):
        if getattr(earlier, what) != getattr(run, what):
            raise AutosegError(
                f"{folder} holds masks that were made differently ({what} are not the same)",
                "give another output folder, or make all masks again without --continue",
            )


def _parsed(line: str) -> dict[str, Any] | None:
    """None for a line that a killed run left half written."""
    try:
        content: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return content


class ProgressLog:
    """Written while a run goes on. Goes away with `close`; what is left otherwise is gone on with next time."""

    def __init__(self, folder: Path, run: PredictionRecord, done: dict[str, PredictedCase]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / UNFINISHED
        self._stream: TextIO = self._path.open("w", encoding="utf-8")
        # On one line, as each case that follows.
        self._line(json.dumps(json.loads(serde.to_json(run)), ensure_ascii=False))
        for case in done.values():
            self.add(case)

    def add(self, case: PredictedCase) -> None:
        """A case whose mask is written."""
        self._line(serde.to_line(case))

    def finished(self) -> None:
        """prediction.json holds all of it now."""
        self._stream.close()
        self._path.unlink()

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
