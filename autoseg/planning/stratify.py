"""Parts of a dataset that keep groups whole and hold every stratum alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Spreads closer than this are equal but for rounding.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8
_Floats = npt.NDArray[np.float64]


def assign(strata: Sequence[str], groups: Sequence[str], parts: int, seed: int) -> npt.NDArray[np.int64]:
    """The part, 0 to `parts` - 1, of each case, given its stratum and its group.

    Greedy: groups that hold the strata least evenly come first, equal ones in an order drawn from `seed`; each goes where the
    strata are then spread most evenly over the parts, and to the smallest of parts that are equal in this. It is the rule of
    scikit-learn's StratifiedGroupKFold, which gives the same parts for the same seed, without the second its import takes.
    """
    stratum, group = (np.unique(names, return_inverse=True)[1] for names in (strata, groups))
    held = np.zeros((group.max() + 1, stratum.max() + 1))
    np.add.at(held, (group, stratum), 1)
    order = np.arange(len(held))
    np.random.RandomState(seed).shuffle(order)
    totals, filled = held.sum(axis=0), np.zeros((parts, held.shape[1]))
    chosen = np.empty(len(held), np.int64)
    uneven = held[order].std(axis=1)
    for place in order[np.argsort(-uneven, kind="stable")]:
        chosen[place] = part = _best(filled, held[place], totals)
        filled[part] += held[place]
    return chosen[group]


def _best(filled: _Floats, added: _Floats, totals: _Floats) -> int:
    """The part that should get a group. filled: (parts, strata) cases in each; added, totals: (strata,)."""
    parts = np.arange(len(filled))
    tried = np.repeat(filled[None], len(filled), axis=0)
    tried[parts, parts] += added
    spreads, sizes = (tried / totals).std(axis=1).mean(axis=1), filled.sum(axis=1)
    best = 0
    for part in parts[1:]:
        same = abs(spreads[part] - spreads[best]) <= _ABSOLUTE + _RELATIVE * spreads[best]
        if spreads[part] < spreads[best] or (same and sizes[part] < sizes[best]):
            best = int(part)
    return best
