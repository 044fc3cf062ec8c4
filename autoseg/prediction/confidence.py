"""How far a mask can be trusted, from the probabilities and from what the members of an ensemble say of each other.

Agreement of members as a measure of confidence follows Zenk et al., Medical Image Analysis 101:103392 (2025).
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
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import Calibration, Confidence

# Members are compared on at most so many pixels, evenly spread, so that memory does not grow with them.
_COMPARED = 1 << 20
# Probabilities below this much are the tails of a sigmoid or softmax and not an opinion.
_TAIL = 0.02
DISAGREEMENT = 0.7


@dataclass(frozen=True)
class MemberPrediction:
    """What one member says of one image. labels: (h, w), thinned out. soft: class -> see `soft_dice`."""

    labels: NDArray[np.integer[Any]]
    soft: dict[str, float]


def member_prediction(maps: Tensor, scheme: LabelScheme) -> MemberPrediction:
    """From one member's probabilities (K, h, w), at the size its network saw."""
    step = max(1, math.ceil(math.sqrt(maps.shape[1] * maps.shape[2] / _COMPARED)))
    thin = maps[:, ::step, ::step]
    return MemberPrediction(
        resample_to_original.label_map(thin, scheme, (thin.shape[1], thin.shape[2])), soft_dice(maps, scheme)
    )


def soft_dice(maps: Tensor, scheme: LabelScheme) -> dict[str, float]:
    """Class -> Dice the probabilities (K, h, w) expect of their own mask m: 2 sum(p m) / (sum(p) + sum(m)).

    Where a class wins nowhere, how sure its absence is: 1 - the largest probability.
    """
    sums = SoftDiceAccumulator(scheme)
    sums.add(maps)
    return sums.soft_dice()


class SoftDiceAccumulator:
    """What soft Dice is made of, summed over parts of an image."""

    def __init__(self, scheme: LabelScheme) -> None:
        self._scheme = scheme
        self._sums = {name: [0.0, 0.0, 0.0, 0.0] for name in scheme.foreground}

    def add(self, maps: Tensor) -> None:
        """Probabilities (K, h, w) of one part."""
        values = maps.numpy()
        for name, map_, mask in zip(self._scheme.names, values, _winners(values, self._scheme), strict=True):
            if name not in self._sums:
                continue
            known = self._sums[name]
            known[0] += float((map_ * mask).sum())
            known[1] += float((map_ * (map_ > _TAIL)).sum())
            known[2] += int(np.count_nonzero(mask))
            known[3] = max(known[3], float(map_.max()))

    def soft_dice(self) -> dict[str, float]:
        """Of all parts together."""
        return {
            name: 2 * inside / (total + area) if area else 1 - highest
            for name, (inside, total, area, highest) in self._sums.items()
        }


def _winners(values: NDArray[np.float32], scheme: LabelScheme) -> Iterator[NDArray[np.bool_]]:
    """Where each map wins: above one half for regions, else the largest, the first among equals."""
    if scheme.regions:
        yield from (map_ > 0.5 for map_ in values)
        return
    # One pass for each class: ten times faster than torch's argmax over an outer axis.
    highest = values.max(axis=0)
    free = np.ones(highest.shape, bool)
    for map_ in values:
        mask = (map_ == highest) & free
        free ^= mask
        yield mask


def entropy(maps: Tensor, scheme: LabelScheme) -> float:
    """Mean over pixels of the probabilities' entropy, as a share of the largest possible."""
    values = maps.numpy()
    if scheme.regions:
        values = np.concatenate([values, 1 - values])
    largest = math.log(2) * len(maps) if scheme.regions else math.log(len(maps))
    # The logarithm of what is no chance at all is never asked for: 0 log 0 is 0.
    return -len(values) * float((values * np.log(np.maximum(values, 1e-30))).mean()) / largest


def agreement(opinions: Sequence[MemberPrediction], scheme: LabelScheme) -> dict[str, float]:
    """Class -> mean Dice of all pairs of members; 1 for a pair that finds nothing. Empty where there is one member."""
    pairs = list(combinations([each.labels for each in opinions], 2))
    if not pairs:
        return {}
    sums = dict.fromkeys(scheme.foreground, 0.0)
    for first, second in pairs:
        for name, count in counts(first, second, scheme.foreground).items():
            sums[name] += 1.0 if math.isnan(count.dice) else count.dice
    return {name: value / len(pairs) for name, value in sums.items()}


def assess(
    maps: Tensor, opinions: Sequence[MemberPrediction], scheme: LabelScheme, calibration: Calibration | None = None
) -> Confidence:
    """Confidence in the mask of `maps` (K, h, w), the mean of the members whose opinions are given (none for one member)."""
    softs = [each.soft for each in opinions] or [soft_dice(maps, scheme)]
    return _composed(softs, agreement(opinions, scheme), entropy(maps, scheme), calibration, found_in(maps, scheme))


def found_in(maps: Tensor, scheme: LabelScheme) -> set[str]:
    """Names of the classes that probabilities (K, h, w) lead to somewhere."""
    values = maps.numpy()
    highest = None if scheme.regions else values.max(axis=0)
    won = [bool((map_ > 0.5).any() if highest is None else (map_ == highest).any()) for map_ in values]
    return {name for name, somewhere in zip(scheme.names, won, strict=True) if somewhere and name in scheme.foreground}


class ConfidenceAccumulator:
    """The same for an image that is too large to be judged at once: parts of rows from the top down."""

    def __init__(self, scheme: LabelScheme, members: int, size: tuple[int, int]) -> None:
        self._scheme = scheme
        self._step = max(1, math.ceil(math.sqrt(size[0] * size[1] / _COMPARED)))
        self._softs = [SoftDiceAccumulator(scheme) for _ in range(members)]
        self._labels: list[list[NDArray[np.integer[Any]]]] = [[] for _ in range(members)]
        self._pixels = size[0] * size[1]
        self._entropy = 0.0
        self._found: set[str] = set()

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
        self._found |= found_in(maps, self._scheme)

    def confidence(self, calibration: Calibration | None) -> Confidence:
        """Once all rows were added."""
        softs = [each.soft_dice() for each in self._softs]
        stacked = [np.concatenate(parts) for parts in self._labels if parts]
        agreed = agreement([MemberPrediction(labels, {}) for labels in stacked], self._scheme)
        return _composed(softs, agreed, self._entropy, calibration, self._found)


def _composed(
    softs: Sequence[dict[str, float]],
    agreed: dict[str, float],
    entropy_: float,
    calibration: Calibration | None,
    found: Collection[str],
) -> Confidence:
    """found: the classes in the mask that comes of the members' mean."""
    softly = {name: mean(each[name] for each in softs) for name in softs[0]}
    # One member can only be asked how sure it is; where several answer, how well they agree counts as much.
    classes = {name: (softly[name] + agreed[name]) / 2 if agreed else softly[name] for name in softly}

    def over(values: dict[str, float]) -> float:
        return mean(values[name] for name in (found or values))

    value, soft = over(classes), over(softly)
    return Confidence(
        value=round(value, 4),
        expected_dice=_expected(calibration, value, soft, not found),
        soft_dice=round(soft, 4),
        agreement=round(over(agreed), 4) if agreed else math.nan,
        entropy=round(entropy_, 4),
        classes={name: round(one, 4) for name, one in classes.items()},
    )


def _expected(calibration: Calibration | None, value: float, soft: float, empty: bool) -> float:
    if calibration is None:
        return math.nan
    return round(calibration(soft if calibration.score == "soft_dice" else value, empty), 4)


def mean(values: Iterable[float]) -> float:
    """The mean; not-a-number of nothing."""
    known = list(values)
    return sum(known) / len(known) if known else math.nan
