"""Position of each case in the arrays of a preprocessed dataset: `index.json` next to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoseg.schema.artefact import Artefact, Content
from autoseg.schema.limits import Count, FileName, Positive, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayEntry:
    """One case. image, label: its first element in images.npy and labels.npy. shape: (H, W, C). before: (H, W) in the file.

    foreground: label value, as text -> (first row in foreground.npy, count).
    """

    image: Count
    label: Count
    shape: tuple[Side, Side, Positive]
    before: tuple[Side, Side]
    foreground: dict[str, tuple[Count, Count]]


def _without_hashes(content: Content) -> Content:
    """Version 1 had none: its arrays cannot be verified, so they are made again before use."""
    return content | {"hashes": {}}


@dataclass(frozen=True, kw_only=True)
class ArrayIndex(Artefact):
    """`index.json`. identity: hash of what the arrays were made from. sizes: elements of images.npy, labels.npy and rows of
    foreground.npy. hashes: XXH3, 128 bits, of these files, and of `cases` as JSON under "cases"."""

    NAME = "arrays"
    VERSION = 2
    MIGRATIONS = (_without_hashes,)
    UNMARKED = True

    identity: str
    sizes: tuple[Count, Count, Count]
    cases: dict[FileName, ArrayEntry]
    hashes: dict[str, str]

    def problems(self) -> Iterator[str]:
        """Cases that lie outside the arrays."""
        images, labels, rows = self.sizes
        for name, entry in self.cases.items():
            height, width, channels = entry.shape
            if entry.image + height * width * channels > images or entry.label + height * width > labels:
                yield f"cases.{name}: ends outside the arrays"
            elif any(start + count > rows for start, count in entry.foreground.values()):
                yield f"cases.{name}.foreground: ends outside the arrays"
            elif not all(value.isdecimal() and int(value) < 256 for value in entry.foreground):
                yield f"cases.{name}.foreground: expected label values from 0 to 255, found {', '.join(entry.foreground)}"
