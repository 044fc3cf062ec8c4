"""Pixel counts of a predicted label map against its reference, and the metrics that follow from counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import quotient

LabelMap = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
# Two values below this fit one byte together, and counting bytes is fastest.
_SMALL = 16


@dataclass(frozen=True)
class Counts:
    """Pixels of one class: predicted rightly (tp), predicted wrongly (fp), missed (fn)."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def dice(self) -> float:
        return quotient(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        return quotient(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        return quotient(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return quotient(self.tp, self.tp + self.fn)


def counts(
    prediction: LabelMap, reference: LabelMap, members: Mapping[str, Sequence[int]], ignore: Mask | None = None
) -> dict[str, Counts]:
    """Counts of each class in one pass over two label maps (H, W).

    members: class name -> label values it consists of (`LabelScheme.foreground`); classes may share values. ignore: pixels
    that count nowhere. Raises ValueError where the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    known = sorted({value for member in members.values() for value in member})
    if all(0 <= value < _SMALL for value in (*known, *_range(prediction), *_range(reference))):
        size, place = _SMALL, {value: value for value in known}
        pairs = reference.astype(np.uint8, copy=False) * np.uint8(size) + prediction.astype(np.uint8, copy=False)
    else:
        # Place 0 is for all values that no class holds.
        size, place = len(known) + 1, {value: index + 1 for index, value in enumerate(known)}
        pairs = _places(reference, known) * size + _places(prediction, known)
    table = np.bincount(pairs.ravel() if ignore is None else pairs[~ignore], minlength=size * size).reshape(size, size)
    return {name: _read(table, sorted({place[value] for value in member})) for name, member in members.items()}


def total(parts: Iterable[Counts]) -> Counts:
    """Counts summed over cases."""
    return sum(parts, Counts(0, 0, 0))


def _range(labels: LabelMap) -> tuple[int, int]:
    return (int(labels.min()), int(labels.max())) if labels.size else (0, 0)


def _places(labels: LabelMap, known: Sequence[int]) -> NDArray[np.intp]:
    values = np.asarray(known, dtype=np.int64)
    found = np.minimum(np.searchsorted(values, labels), len(values) - 1)
    return np.where(values[found] == labels, found + 1, 0)


def _read(table: NDArray[np.intp], places: Sequence[int]) -> Counts:
    """Counts of the class at some places of a table [reference, prediction]."""
    tp = int(table[np.ix_(places, places)].sum())
    return Counts(tp, int(table[:, places].sum()) - tp, int(table[places].sum()) - tp)
