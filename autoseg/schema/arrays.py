"""Position of each case in the arrays of a preprocessed dataset: `index.json` next to them."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.schema.artefact import Artefact


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayEntry:
    """One case. image, label: its first element in images.npy and labels.npy. shape: (H, W, C). before: (H, W) in the file.

    foreground: label value, as text -> (first row in foreground.npy, count).
    """

    image: int
    label: int
    shape: tuple[int, int, int]
    before: tuple[int, int]
    foreground: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ArrayIndex(Artefact):
    """`index.json`. identity: hash of what the arrays were made from. sizes: elements of images.npy, labels.npy and rows of
    foreground.npy."""

    NAME = "arrays"
    VERSION = 1
    UNMARKED = True

    identity: str
    sizes: tuple[int, int, int]
    cases: dict[str, ArrayEntry]
