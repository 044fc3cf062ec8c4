"""Which case and which window is drawn when. Every draw has its own random generator, keyed by where it stands in the run,
so that a resumed run, or one with other threads, sees exactly the same images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# A class is rare where fewer than this share of the training cases hold it.
RARE = 1 / 3
# Separate streams of random numbers: one purpose never shifts another's draws.
_ORDER, _SAMPLE = 0, 1

T = TypeVar("T")
Samples = Mapping[int, NDArray[np.int32]]


def generator(seed: int, epoch: int, step: int, sample: int, purpose: int = _SAMPLE) -> np.random.Generator:
    """The random numbers of one sample of one step, independent of all others.

    Philox is a function of key and counter: the counter's lowest word runs, the others say where we are.
    """
    return np.random.Generator(np.random.Philox(counter=[0, sample, step, epoch], key=[seed % 2**64, purpose]))


@dataclass(frozen=True)
class Sample:
    """One sample to make. centre: (row, column) of the stored image the window is centred on, None for anywhere."""

    case: str
    centre: tuple[int, int] | None = None


class Sampler:
    """Epochs are passes over the training cases in a fresh order; the last batch is filled from the order's beginning.

    foreground: for each case, label value -> (N, 2) pixels of it (row, column). Of all draws, `share` are made for the
    classes, evenly spread. Patches: a class is chosen, each as often as any other, and the window is centred on a pixel
    of it; a case without it lends its turn to one that holds it if the class is rare or the case holds none at all, else
    shows another class of its own. Whole images: the turn goes to a case that holds a rare class, each rare class as
    often as any other; without rare classes nothing changes.
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
        self.rare = tuple(value for value, held in self._holders.items() if len(held) < RARE * len(self.cases))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.cases) / self.batch_size)

    def order(self, epoch: int) -> NDArray[np.intp]:
        """The epoch's order of the cases."""
        return generator(self._seed, epoch, 0, 0, _ORDER).permutation(len(self.cases))

    def draw(self, order: NDArray[np.intp], step: int, sample: int, random: np.random.Generator) -> Sample:
        """What comes at one place of an epoch whose order is given."""
        place = step * self.batch_size + sample
        case = self.cases[order[place % len(order)]]
        # True for exactly this share of the places, evenly spread.
        if math.floor((place + 1) * self._share) == math.floor(place * self._share):
            return Sample(case)
        if self._whole:
            return Sample(_pick(self._holders[_pick(self.rare, random)], random) if self.rare else case)
        return self._centred(case, random)

    def _centred(self, case: str, random: np.random.Generator) -> Sample:
        if not self._holders:
            return Sample(case)
        value = _pick(tuple(self._holders), random)
        here = tuple(held for held, pixels in self._foreground[case].items() if len(pixels))
        if value not in here and (value in self.rare or not here):
            case = _pick(self._holders[value], random)
        elif value not in here:
            value = _pick(here, random)
        pixels = self._foreground[case][value]
        row, column = pixels[int(random.integers(len(pixels)))]
        return Sample(case, (int(row), int(column)))


def _pick(choices: Sequence[T], random: np.random.Generator) -> T:
    return choices[int(random.integers(len(choices)))]


def window_start(length: int, window: int, centre: int | None, random: np.random.Generator) -> int:
    """First pixel of a window along one axis.

    Around `centre` as far as the image allows, else anywhere. An image smaller than the window lies in its middle: the
    start is then negative.
    """
    spare = length - window
    if spare <= 0:
        return -((-spare) // 2)
    if centre is None:
        return int(random.integers(spare + 1))
    return min(max(centre - window // 2, 0), spare)
