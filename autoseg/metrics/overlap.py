"""Pixel counts of a predicted label map against its reference, and the metrics computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import OVERLAP, UNDEFINED, is_defined, quotient

LabelMap = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
# Two values below this fit into one byte. Counting bytes is fastest.
_BYTE_VALUES = 16


@dataclass(frozen=True)
class Counts:
    """Pixels of one class: true positives (tp), false positives (fp), false negatives (fn)."""

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

    @property
    def area_bias(self) -> float:
        return quotient(self.fp - self.fn, self.tp + self.fn)

    @property
    def area_error(self) -> float:
        return abs(self.area_bias)


def counts(
    prediction: LabelMap, reference: LabelMap, members: Mapping[str, Sequence[int]], ignore: Mask | None = None
) -> dict[str, Counts]:
    """Counts of each class in one pass over two label maps (H, W).

    members: class name -> its label values (`LabelScheme.foreground`); classes may share values. ignore: (H, W), pixels to
    leave out. Raises ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    declared = sorted({value for member in members.values() for value in member})
    if all(0 <= value < _BYTE_VALUES for value in (*declared, *_range(prediction), *_range(reference))):
        size, index_of = _BYTE_VALUES, {value: value for value in declared}
        value_pairs = reference.astype(np.uint8, copy=False) * np.uint8(size) + prediction.astype(np.uint8, copy=False)
    else:
        # Index 0 is for all values of no class.
        size, index_of = len(declared) + 1, {value: index + 1 for index, value in enumerate(declared)}
        value_pairs = _value_indices(reference, declared) * size + _value_indices(prediction, declared)
    table = np.bincount(value_pairs.ravel() if ignore is None else value_pairs[~ignore], minlength=size * size).reshape(
        size, size
    )
    return {name: _class_counts(table, sorted({index_of[value] for value in member})) for name, member in members.items()}


def total(parts: Iterable[Counts]) -> Counts:
    """Sum of the counts of several cases."""
    return sum(parts, Counts(0, 0, 0))


def averages(classes: Mapping[str, Counts]) -> dict[str, float]:
    """Averages over the foreground classes, from each one's counts summed over a set of cases.

    "micro.dice", ...: of the counts summed over the classes too, the first study's mDSC, mIoU, mPrec and mRec (arXiv
    2603.13044). "class_mean.dice", ...: the mean over the classes for which the metric is defined.
    """
    summed = total(classes.values())
    micro = {f"micro.{metric}": float(getattr(summed, metric)) for metric in OVERLAP}
    means = {f"class_mean.{metric}": mean(getattr(one, metric) for one in classes.values()) for metric in OVERLAP}
    return micro | means


def mean(values: Iterable[float]) -> float:
    """Mean of the defined values; undefined if there are none."""
    defined = [value for value in values if is_defined(value)]
    return float(sum(defined) / len(defined)) if defined else UNDEFINED


def _range(labels: LabelMap) -> tuple[int, int]:
    return (int(labels.min()), int(labels.max())) if labels.size else (0, 0)


def _value_indices(labels: LabelMap, declared: Sequence[int]) -> NDArray[np.intp]:
    values = np.asarray(declared, dtype=np.int64)
    nearest = np.minimum(np.searchsorted(values, labels), len(values) - 1)
    return np.where(values[nearest] == labels, nearest + 1, 0)


def _class_counts(table: NDArray[np.intp], indices: Sequence[int]) -> Counts:
    """Counts of the class at some indices of a confusion matrix [reference, prediction]."""
    tp = int(table[np.ix_(indices, indices)].sum())
    return Counts(tp, int(table[:, indices].sum()) - tp, int(table[indices].sum()) - tp)
