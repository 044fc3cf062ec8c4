"""Where a weights file came from: a JSON file next to it. And the list of files in a kit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import Count, PathBelow


@dataclass(frozen=True, kw_only=True)
class WeightsRecord(Artefact):
    """`<file>.json` next to a file of published weights.

    path: within the weights folder. sha256, size: of its content, when it was put there. source: its address, or the name of
    the file or folder it was added from. revision: commit in the repository it came from, "" for other sources. added: date.
    """

    NAME = "weights"
    VERSION = 1

    path: PathBelow
    sha256: str
    size: Count
    source: str
    revision: str = ""
    licence: str = ""
    trained_on: str = ""
    added: str = ""


@dataclass(frozen=True, kw_only=True)
class WeightsKit(Artefact):
    """`kit.json` in an archive of weights. files: the archive's other members, with the paths of their records."""

    NAME = "weights_kit"
    VERSION = 1

    files: tuple[WeightsRecord, ...]

    def problems(self) -> Iterator[str]:
        """Two records of one file, and files that are no weights."""
        paths = [record.path for record in self.files]
        for number, path in enumerate(paths):
            if path in paths[:number]:
                yield f"files[{number}].path: expected each file once, found {path!r} again"
            if PurePosixPath(path).suffix not in WEIGHTS_SUFFIXES:
                yield f"files[{number}].path: expected a name that ends with {' or '.join(WEIGHTS_SUFFIXES)}, found {path!r}"


WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
