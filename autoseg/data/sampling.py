"""Order of cases and windows. Each sample has its own random generator, keyed by epoch, step and sample, so a resumed run, or a
run with another number of threads, gets exactly the same images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# A class is rare if fewer than this fraction of the training cases contain it.
RARE = 1 / 3
# Separate random streams: draws for one purpose do not affect the other.
_ORDER, _SAMPLE = 0, 1
# 2 is that of the network (dropout).
VIEW_STREAM = 3

T = TypeVar("T")
Samples = Mapping[int, NDArray[np.int32]]


def generator(seed: int, epoch: int, step: int, sample: int, purpose: int = _SAMPLE) -> np.random.Generator:
    """Random generator of one sample of one step, independent of all others.

    Philox is a function of key and counter. Only the counter's lowest word advances; the others identify the sample.
    """
    return np.random.Generator(np.random.Philox(counter=[0, sample, step, epoch], key=[seed % 2**64, purpose]))


@dataclass(frozen=True)
class Sample:
    """One sample of a batch. centre: (row, column) of the window's centre in the stored image; None: random position."""

    case: str
    centre: tuple[int, int] | None = None


class Sampler:
    """An epoch is one pass over the training cases in random order; the last batch is filled from the order's beginning.

    foreground: for each case, label value -> (N, 2) pixels of that class (row, column). A fraction `share` of the samples,
    evenly spread, is chosen by class, and all classes are equally likely.
    Patches: the window is centred on a pixel of the class. If the case does not contain the class, another case with it is
    used if the class is rare or the case has no foreground; otherwise another class of the same case is used.
    Whole images: a case with a rare class is used; without rare classes nothing changes.
    """

    def __init__(
        self, cases: Sequence[str], foreground: Mapping[str, Samples], batch_size: int, share: float, whole: bool, seed: int
    ) -> None:
        assert cases and batch_size > 0 and 0 <= share <= 1
        self.cases = tuple(cases)
        self.batch_size = batch_size
        self._share = share
        self._whole = whole
        self._seed = seed
        self._foreground = foreground
        holders: dict[int, list[str]] = {}
        for case in self.cases:
            for value, pixels in foreground[case].items():
                if len(pixels):
                    holders.setdefault(value, []).append(case)
        self._holders = {value: tuple(holders[value]) for value in sorted(holders)}
        self.rare = tuple(value for value, holders in self._holders.items() if len(holders) < RARE * len(self.cases))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.cases) / self.batch_size)

    def order(self, epoch: int) -> NDArray[np.intp]:
        """The epoch's order of the cases."""
        return generator(self._seed, epoch, 0, 0, _ORDER).permutation(len(self.cases))

    def draw(self, order: NDArray[np.intp], step: int, sample: int, random: np.random.Generator) -> Sample:
        """The sample at one position of an epoch with the given order."""
        position = step * self.batch_size + sample
        case = self.cases[order[position % len(order)]]
        # True for exactly the fraction 1 - share of the positions, evenly spread.
        if math.floor((position + 1) * self._share) == math.floor(position * self._share):
            return Sample(case)
        if self._whole:
            return Sample(_pick(self._holders[_pick(self.rare, random)], random) if self.rare else case)
        return self._centred(case, random)

    def view(self, case: str, number: int, random: np.random.Generator) -> Sample:
        """A fixed window of a case: of the views of a case, the same share as of samples is centred on one of its classes."""
        present = [pixels for pixels in self._foreground[case].values() if len(pixels)]
        centred = math.floor((number + 1) * self._share) > math.floor(number * self._share)
        if not centred or not present:
            return Sample(case)
        pixels = present[int(random.integers(len(present)))]
        row, column = pixels[int(random.integers(len(pixels)))]
        return Sample(case, (int(row), int(column)))

    def _centred(self, case: str, random: np.random.Generator) -> Sample:
        if not self._holders:
            return Sample(case)
        value = _pick(tuple(self._holders), random)
        present = tuple(label for label, pixels in self._foreground[case].items() if len(pixels))
        if value not in present and (value in self.rare or not present):
            case = _pick(self._holders[value], random)
        elif value not in present:
            value = _pick(present, random)
        pixels = self._foreground[case][value]
        row, column = pixels[int(random.integers(len(pixels)))]
        return Sample(case, (int(row), int(column)))


def _pick(choices: Sequence[T], random: np.random.Generator) -> T:
    return choices[int(random.integers(len(choices)))]


def window_start(length: int, window: int, centre: int | None, random: np.random.Generator) -> int:
    """First pixel of a window along one axis: around `centre`, shifted into the image; random without a centre.

    An image smaller than the window is centred in it: the start is then negative.
    """
    free = length - window
    if free <= 0:
        return -((-free) // 2)
    if centre is None:
        return int(random.integers(free + 1))
    return min(max(centre - window // 2, 0), free)
