"""Two readers of one case: when the second is asked, and what becomes of two masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.overlap import counts
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import PredictedCase
from autoseg.schema.second_reader import Policy

LabelMap = NDArray[np.integer[Any]]


def trust_of(case: PredictedCase) -> float:
    """How far a first mask can be trusted: its expected Dice, else its confidence, 0 where nothing is known."""
    if case.confidence is None:
        return 0.0
    expected, plain = case.confidence.expected_dice, case.confidence.value
    found = plain if math.isnan(expected) else expected
    return 0.0 if math.isnan(found) else found


def doubtful(cases: Sequence[PredictedCase], threshold: float) -> list[str]:
    """Cases to be read again."""
    return [case.case for case in cases if trust_of(case) < threshold]


def combine(first: LabelMap, second: LabelMap, policy: Policy) -> LabelMap:
    """One label map (H, W) of two.

    flag: the first. replace: the second. union: what either marks, as the first says where both do. consensus: what both
    mark alike, else background. Raises ValueError where the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"the readers' masks have shapes {first.shape} and {second.shape}")
    if policy == "flag":
        return first
    if policy == "replace":
        return second
    if policy == "union":
        return np.where(first != 0, first, second)
    return np.where(first == second, first, 0).astype(first.dtype)


def agreement(first: LabelMap, second: LabelMap, scheme: LabelScheme) -> float:
    """Mean Dice of two masks over the classes; 1 for a class that neither marks."""
    found = [1.0 if math.isnan(one.dice) else one.dice for one in counts(first, second, scheme.foreground).values()]
    return sum(found) / len(found)
