"""What reading a file gives, in words: the tables of documentation/reading.md are made of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.io import read_image, read_label
from autoseg.support.errors import AutosegError


@dataclass(frozen=True)
class Row:
    """kind, types: of the file. outcomes: in words, one for each column."""

    kind: str
    types: str
    outcomes: tuple[str, ...]


def observe(kind: str, types: str, image: Path, mask: Path | None = None) -> Row:
    """Reads a file as an image and another as a mask."""
    return Row(kind, types, (_outcome(image, True), *([_outcome(mask, False)] if mask else [])))


def _outcome(path: Path, as_image: bool) -> str:
    try:
        found = read_image(path) if as_image else read_label(path)
    except AutosegError as error:
        words = re.sub(r": \(\d.*", "", error.problem.replace(f"{path} ", "").replace(str(path), "the file"))
        return "**refused**: " + re.sub(r"from [\d.]+ to [\d.]+", "from ... to ...", words)
    channels = len(found.array) if as_image else 1
    what = f"{channels} channel{'s' if channels > 1 else ''}" if as_image else "read"
    return "; ".join((what, *found.notes))


def table(heading: Sequence[str], rows: Iterable[Row], types: bool = True) -> str:
    """Markdown. Types of one kind with equal outcomes share a row."""
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for row in rows:
        merged.setdefault((row.kind, row.outcomes), []).append(row.types)
    lines = [f"| {' | '.join(heading)} |", "|" + "---|" * len(heading)]
    for (kind, outcomes), names in merged.items():
        if len(set(outcomes)) == 1 and outcomes[0].startswith("**refused"):
            outcomes = (outcomes[0], *["**refused**"] * (len(outcomes) - 1))
        cells = (kind, *([", ".join(dict.fromkeys(names))] if types else []), *outcomes)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)
