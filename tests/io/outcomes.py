"""What reading a file gives, in words: the tables of documentation/reading.md are made of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.io import Image, Label, read_image, read_label
from autoseg.support.errors import AutosegError


@dataclass(frozen=True)
class Row:
    """kind, types: of the file. outcomes: in words, one for each column."""

    kind: str
    types: str
    outcomes: tuple[str, ...]


def observe(kind: str, types: str, image: Path, mask: Path | None = None) -> Row:
    """Reads a file as an image and another as a mask."""
    outcomes = [describe(lambda: read_image(image), image)]
    return Row(kind, types, (*outcomes, *([describe(lambda: read_label(mask), mask)] if mask else [])))


def describe(read: Callable[[], Image | Label], path: Path) -> str:
    """In words: channels and notes, or why the file is refused."""
    try:
        result = read()
    except AutosegError as error:
        words = re.sub(r": \(\d.*", "", error.problem.replace(f"{path} ", "").replace(str(path), "the file"))
        return "**refused**: " + re.sub(r"from [\d.]+ to [\d.]+", "from ... to ...", re.sub(r" \([^()]*\binf\)", "", words))
    channels = len(result.array) if isinstance(result, Image) else 0
    what = f"{channels} channel{'s' if channels > 1 else ''}" if channels else "read"
    return "; ".join((what, *result.notes))


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
