"""A second reader: select doubtful cases and combine the masks of two readers."""

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


def confidence_of(case: PredictedCase) -> float:
    """Expected Dice of a mask, else its confidence; 0 if neither is known."""
    if case.confidence is None:
        return 0.0
    expected, uncalibrated = case.confidence.expected_dice, case.confidence.value
    confidence = uncalibrated if math.isnan(expected) else expected
    return 0.0 if math.isnan(confidence) else confidence


def doubtful_cases(cases: Sequence[PredictedCase], threshold: float) -> list[str]:
    """Names of the cases whose confidence is below the threshold."""
    return [case.case for case in cases if confidence_of(case) < threshold]


def combine(first: LabelMap, second: LabelMap, policy: Policy) -> LabelMap:
    """Combine two label maps (H, W).

    flag: the first. replace: the second. union: foreground of either; the first where both have one. consensus: pixels on
    which both agree, else background. Raises ValueError if the shapes differ.
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
    """Mean Dice of two masks over the classes; 1 for a class in neither mask."""
    dices = [1.0 if math.isnan(count.dice) else count.dice for count in counts(first, second, scheme.foreground).values()]
    return sum(dices) / len(dices)
