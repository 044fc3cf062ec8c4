"""Confidence in a mask, from the probabilities and from the agreement of the ensemble's members.

Agreement as a measure of confidence follows Zenk et al., Medical Image Analysis 101:103392 (2025).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoseg.inference import resample_to_original
from autoseg.metrics.overlap import counts
from autoseg.prediction.calibration import UNCALIBRATED
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import Calibration, Confidence

# Members are compared on at most this many evenly spaced pixels, to bound memory.
_MAX_COMPARED = 1 << 20
# Smaller probabilities are the tail of a sigmoid or softmax and do not count.
_TAIL = 0.02
DISAGREEMENT = 0.7


@dataclass(frozen=True)
class MemberPrediction:
    """One member's prediction for one image. labels: (h, w), subsampled. soft: class -> `soft_dice`."""

    labels: NDArray[np.integer[Any]]
    soft: dict[str, float]


def member_prediction(maps: Tensor, scheme: LabelScheme) -> MemberPrediction:
    """From one member's probabilities (K, h, w), at the network's input size."""
    step = max(1, math.ceil(math.sqrt(maps.shape[1] * maps.shape[2] / _MAX_COMPARED)))
    thin = maps[:, ::step, ::step]
    return MemberPrediction(
        resample_to_original.label_map(thin, scheme, (thin.shape[1], thin.shape[2])), soft_dice(maps, scheme)
    )


def soft_dice(maps: Tensor, scheme: LabelScheme) -> dict[str, float]:
    """Class -> soft Dice of probabilities p (K, h, w) and their own mask m: 2 sum(p m) / (sum(p) + sum(m)).

    For a class with an empty mask: 1 - its largest probability.
    """
    sums = SoftDiceAccumulator(scheme)
    sums.add(maps)
    return sums.soft_dice()


class SoftDiceAccumulator:
    """Sums for soft Dice over the parts of an image."""

    def __init__(self, scheme: LabelScheme) -> None:
        self._scheme = scheme
        self._sums = {name: [0.0, 0.0, 0.0, 0.0] for name in scheme.foreground}

    def add(self, maps: Tensor) -> None:
        """Probabilities (K, h, w) of one part."""
        values = maps.numpy()
        for name, map_, mask in zip(self._scheme.names, values, _class_masks(values, self._scheme), strict=True):
            if name not in self._sums:
                continue
            sums = self._sums[name]
            sums[0] += float((map_ * mask).sum())
            sums[1] += float((map_ * (map_ > _TAIL)).sum())
            sums[2] += int(np.count_nonzero(mask))
            sums[3] = max(sums[3], float(map_.max()))

    def soft_dice(self) -> dict[str, float]:
        """Class -> soft Dice of all parts together."""
        return {
            name: 2 * inside / (total + area) if area else 1 - highest
            for name, (inside, total, area, highest) in self._sums.items()
        }


def _class_masks(values: NDArray[np.float32], scheme: LabelScheme) -> Iterator[NDArray[np.bool_]]:
    """Mask of each map: above one half for regions, else argmax (ties go to the first)."""
    if scheme.regions:
        yield from (map_ > 0.5 for map_ in values)
        return
    # One pass per class: ten times faster than torch's argmax over the outer axis.
    highest = values.max(axis=0)
    unassigned = np.ones(highest.shape, bool)
    for map_ in values:
        mask = (map_ == highest) & unassigned
        unassigned ^= mask
        yield mask


def entropy(maps: Tensor, scheme: LabelScheme) -> float:
    """Mean entropy over pixels, divided by the largest possible entropy (0 to 1)."""
    values = maps.numpy()
    if scheme.regions:
        values = np.concatenate([values, 1 - values])
    largest = math.log(2) * len(maps) if scheme.regions else math.log(len(maps))
    # 0 log 0 is 0.
    return -len(values) * float((values * np.log(np.maximum(values, 1e-30))).mean()) / largest


def agreement(members: Sequence[MemberPrediction], scheme: LabelScheme) -> dict[str, float]:
    """Class -> mean Dice of all pairs of members; 1 if both masks of a pair are empty. {} for a single member."""
    pairs = list(combinations([member.labels for member in members], 2))
    if not pairs:
        return {}
    sums = dict.fromkeys(scheme.foreground, 0.0)
    for first, second in pairs:
        for name, count in counts(first, second, scheme.foreground).items():
            sums[name] += 1.0 if math.isnan(count.dice) else count.dice
    return {name: value / len(pairs) for name, value in sums.items()}


def assess(
    maps: Tensor, members: Sequence[MemberPrediction], scheme: LabelScheme, calibration: Calibration | None = None
) -> Confidence:
    """Confidence in the mask of `maps` (K, h, w), the mean probabilities of `members` (empty for a single network)."""
    softs = [member.soft for member in members] or [soft_dice(maps, scheme)]
    return _combine(softs, agreement(members, scheme), entropy(maps, scheme), calibration, predicted_classes(maps, scheme))


def predicted_classes(maps: Tensor, scheme: LabelScheme) -> set[str]:
    """Names of the foreground classes in the mask of probabilities (K, h, w)."""
    values = maps.numpy()
    highest = None if scheme.regions else values.max(axis=0)
    present = [bool((map_ > 0.5).any() if highest is None else (map_ == highest).any()) for map_ in values]
    return {name for name, is_present in zip(scheme.names, present, strict=True) if is_present and name in scheme.foreground}


class ConfidenceAccumulator:
    """`assess` for an image too large for memory: add bands of rows from top to bottom."""

    def __init__(self, scheme: LabelScheme, members: int, size: tuple[int, int]) -> None:
        self._scheme = scheme
        self._step = max(1, math.ceil(math.sqrt(size[0] * size[1] / _MAX_COMPARED)))
        self._softs = [SoftDiceAccumulator(scheme) for _ in range(members)]
        self._labels: list[list[NDArray[np.integer[Any]]]] = [[] for _ in range(members)]
        self._pixels = size[0] * size[1]
        self._entropy = 0.0
        self._predicted: set[str] = set()

    def add_member(self, number: int, maps: Tensor, start: int) -> None:
        """Probabilities (K, rows, W) of one member; start: the first row."""
        self._softs[number].add(maps)
        if len(self._softs) > 1:
            thin = maps[:, -start % self._step :: self._step, :: self._step].contiguous()
            if thin.shape[1]:
                self._labels[number].append(resample_to_original.label_map(thin, self._scheme, (thin.shape[1], thin.shape[2])))

    def add_mean(self, maps: Tensor) -> None:
        """Mean probabilities of the same rows."""
        self._entropy += entropy(maps, self._scheme) * maps.shape[1] * maps.shape[2] / self._pixels
        self._predicted |= predicted_classes(maps, self._scheme)

    def confidence(self, calibration: Calibration | None) -> Confidence:
        """Call after all rows were added."""
        softs = [sums.soft_dice() for sums in self._softs]
        stacked = [np.concatenate(parts) for parts in self._labels if parts]
        agreed = agreement([MemberPrediction(labels, {}) for labels in stacked], self._scheme)
        return _combine(softs, agreed, self._entropy, calibration, self._predicted)


def _combine(
    softs: Sequence[dict[str, float]],
    agreed: dict[str, float],
    entropy_: float,
    calibration: Calibration | None,
    predicted: Collection[str],
) -> Confidence:
    """predicted: classes in the ensemble's mask. Means are over these, or over all classes if the mask is empty."""
    mean_soft = {name: mean(soft[name] for soft in softs) for name in softs[0]}
    # Agreement counts as much as soft Dice where there are several members.
    classes = {name: (mean_soft[name] + agreed[name]) / 2 if agreed else mean_soft[name] for name in mean_soft}

    def class_mean(values: dict[str, float]) -> float:
        return mean(values[name] for name in (predicted or values))

    value, soft = class_mean(classes), class_mean(mean_soft)
    return Confidence(
        value=round(value, 4),
        expected_dice=_expected_dice(calibration, value, soft, not predicted),
        soft_dice=round(soft, 4),
        agreement=round(class_mean(agreed), 4) if agreed else math.nan,
        entropy=round(entropy_, 4),
        classes={name: round(one, 4) for name, one in classes.items()},
        note="" if calibration is not None else UNCALIBRATED,
    )


def _expected_dice(calibration: Calibration | None, value: float, soft: float, empty: bool) -> float:
    if calibration is None:
        return math.nan
    return round(calibration(soft if calibration.score == "soft_dice" else value, empty), 4)


def mean(values: Iterable[float]) -> float:
    """The mean; not-a-number if there are no values."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else math.nan
