"""Parts keep groups whole, hold every stratum alike, and are the ones scikit-learn makes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from autoseg.planning.stratify import assign


def drawn(seed: int) -> tuple[list[str], list[str], int]:
    source = np.random.default_rng(seed)
    cases, parts = int(source.integers(20, 150)), int(source.integers(2, 6))
    strata = [f"s{k}" for k in source.integers(0, source.integers(1, 5), cases)]
    groups = [f"g{k}" for k in (source.integers(0, cases // 2, cases) if seed % 2 else range(cases))]
    return strata, groups, parts


@pytest.mark.parametrize("seed", range(20))
def test_the_parts_are_scikit_learns(seed: int) -> None:
    strata, groups, parts = drawn(seed)
    expected = np.full(len(strata), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        splits = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(strata, strata, groups)
        for part, (_, inside) in enumerate(splits):
            expected[inside] = part
    assert np.array_equal(assign(strata, groups, parts, seed), expected)


def test_every_part_holds_as_much_of_a_stratum() -> None:
    strata = ["large"] * 10 + ["small"] * 20
    found = assign(strata, [str(k) for k in range(30)], 5, 0)
    assert [int((found[:10] == part).sum()) for part in range(5)] == [2] * 5
    assert [int((found[10:] == part).sum()) for part in range(5)] == [4] * 5


def test_another_seed_gives_other_parts() -> None:
    strata, groups = ["one"] * 40, [str(k) for k in range(40)]
    assert not np.array_equal(assign(strata, groups, 4, 0), assign(strata, groups, 4, 1))
