"""Pairs, and what hangs together through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from autoseg.io.types import Array

_MOST = 50_000  # pairs: all those of 316 equal pictures, or of 10,000 in groups of ten


class Links:
    """Pairs of a set's items: all of them, but of more than `most` only those that tie together what nothing tied before.

    So `groups` gives the same for the pairs kept as for all, and a set that is one picture keeps no square of its number.
    """

    def __init__(self, items: int, most: int = _MOST) -> None:
        self._most = most
        self._labels = np.arange(items)
        self._pairs: list[tuple[int, int]] = []

    def add(self, pairs: npt.NDArray[np.int64]) -> None:
        """pairs: (N, 2) items."""
        room = max(self._most - len(self._pairs), 0)
        for one, other in pairs[:room].tolist():
            self._keep(one, other)
        left = self._labels[pairs[room:]]
        # Of pairs that tie the same two sets the first will do.
        _, places = np.unique(left[:, 0] * len(self._labels) + left[:, 1], return_index=True)
        for one, other in pairs[room:][np.sort(places)].tolist():
            if self._labels[one] != self._labels[other]:
                self._keep(one, other)

    def takes(self, ones: Array, others: Array) -> npt.NDArray[np.bool_] | np.bool_:
        """Whether `add` might keep pairs of these items, in whatever shape they broadcast to."""
        return np.True_ if len(self._pairs) < self._most else self._labels[ones] != self._labels[others]

    def named(self, names: Array) -> tuple[tuple[int, int], ...]:
        """The pairs kept, sorted, with the names (N,) int in the items' places."""
        if not self._pairs:
            return ()
        return tuple((one, other) for one, other in names[np.array(sorted(self._pairs))].tolist())

    def _keep(self, one: int, other: int) -> None:
        self._pairs.append((one, other))
        first, second = self._labels[one], self._labels[other]
        if first != second:
            self._labels[self._labels == second] = first


def groups(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Sets that hang together through pairs, sorted."""
    parents: dict[int, int] = {}

    def root(item: int) -> int:
        while parents.setdefault(item, item) != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for one, other in pairs:
        parents[root(one)] = root(other)
    members: dict[int, list[int]] = defaultdict(list)
    for item in sorted(parents):
        members[root(item)].append(item)
    return sorted(tuple(group) for group in members.values())
