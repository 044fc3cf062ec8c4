"""Few pairs are kept as they are; of many, enough to hold together what hangs together."""

import numpy as np
import pytest

from autoseg.fingerprint.links import Links, groups


def pairs_of(seed, items, number):
    pairs = np.sort(np.random.default_rng(seed).integers(0, items, (number, 2)), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


@pytest.mark.parametrize(("items", "number", "most"), [(30, 12, 50), (30, 100, 7), (200, 180, 0), (60, 2000, 40)])
def test_groups_are_those_of_all_pairs(items, number, most):
    pairs = pairs_of(items, items, number)
    links, names = Links(items, most), np.arange(items) * 2
    for some in np.array_split(pairs, 5):
        links.add(some)
    kept, every = links.named(names), [(2 * one, 2 * other) for one, other in pairs.tolist()]
    assert groups(kept) == groups(every)
    assert set(kept) <= set(every) and list(kept) == sorted(set(kept))
    assert len(kept) <= most + items and (len(every) > most or list(kept) == every)


def test_what_is_not_taken_would_not_be_kept():
    pairs = pairs_of(1, 40, 200)
    links, asked = Links(40, 30), Links(40, 30)
    for some in np.array_split(pairs, 9):
        links.add(some)
        asked.add(some[np.broadcast_to(asked.takes(some[:, 0], some[:, 1]), len(some))])
    assert links.named(np.arange(40)) == asked.named(np.arange(40))
    assert not links.takes(pairs[:, 0], pairs[:, 1]).any()


def test_groups_are_transitive():
    assert groups([(4, 2), (7, 9), (2, 1)]) == [(1, 2, 4), (7, 9)]
    assert groups([]) == []
