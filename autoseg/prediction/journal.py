"""What a run has done so far, beside the masks, so that a killed run can be gone on with.

A line is added as each case is done; at the end prediction.json takes its place.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypeVar

from autoseg.schema import serde
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact

T = TypeVar("T")
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
        first, *lines = (folder / UNFINISHED).read_text(encoding="utf-8").splitlines() or [""]
        _check(folder, _parsed(first, PredictionRecord), run)
        cases = [_parsed(line, PredictedCase) for line in lines]
        done.update({case.case: case for case in cases if case is not None})
    return {name: case for name, case in done.items() if (folder / case.output).is_file()}


def _check(folder: Path, earlier: PredictionRecord | None, run: PredictionRecord) -> None:
    if earlier is None:
        return
    for what in ("identities", "mirror", "postprocessing", "labels"):
        if getattr(earlier, what) != getattr(run, what):
            raise AutosegError(
                f"{folder} holds masks that were made differently ({what} are not the same)",
                "give another output folder, or make all masks again without --continue",
            )


def _parsed(line: str, kind: type[T]) -> T | None:
    """None for a line that a killed run left half written."""
    try:
        return serde.from_json(line, kind)
    except serde.SchemaError:
        return None


class Journal:
    """Written while a run goes on. Goes away with `close`; what is left otherwise is gone on with next time."""

    def __init__(self, folder: Path, run: PredictionRecord, done: dict[str, PredictedCase]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / UNFINISHED
        self._stream: TextIO = self._path.open("w", encoding="utf-8")
        self._line(run)
        for case in done.values():
            self._line(case)

    def add(self, case: PredictedCase) -> None:
        """A case whose mask is written."""
        self._line(case)

    def finished(self) -> None:
        """prediction.json holds all of it now."""
        self._stream.close()
        self._path.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def _line(self, content: PredictionRecord | PredictedCase) -> None:
        self._stream.write(json.dumps(json.loads(serde.to_json(content)), ensure_ascii=False) + "\n")
        self._stream.flush()
