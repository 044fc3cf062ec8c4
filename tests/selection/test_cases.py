"""The cases of the rungs and the held-back ones are disjoint, whole patients, and evenly spread."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.splits import independent_groups, make_splits
from autoseg.schema.plan import Fold, Splits
from autoseg.selection.cases import CaseRoles, case_roles
from autoseg.support.errors import AutosegError
from tests.planning.fingerprints import FakeDataset, case_name


def roles_of(fake: FakeDataset, splits: Splits | None = None, seed: int = 0) -> CaseRoles:
    return case_roles(splits or make_splits(fake.fingerprint, fake.spec, 5), fake.fingerprint, fake.spec, seed)


@pytest.mark.parametrize(("cases", "expected"), [(100, (50, 20, 30)), (40, (20, 8, 12)), (5, (2, 1, 2)), (7, (4, 1, 2))])
def test_three_tenths_are_held_back_and_two_decide(cases: int, expected: tuple[int, int, int]) -> None:
    roles = roles_of(FakeDataset(cases=cases))
    assert (len(roles.training), len(roles.deciding), len(roles.held_back)) == expected
    assert sorted([*roles.training, *roles.deciding, *roles.held_back]) == [case_name(k) for k in range(cases)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=24, max_size=40),
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), max_size=5),
)
def test_patients_and_duplicates_are_in_one_part(patients: list[int], pairs: list[tuple[int, int]]) -> None:
    groups = {k: f"p{patient}" for k, patient in enumerate(patients) if patient}
    fake = FakeDataset(cases=len(patients), groups=groups, duplicates=tuple(pair for pair in pairs if pair[0] != pair[1]))
    of_case = independent_groups(fake.fingerprint, fake.spec.groups)
    if len(set(of_case.values())) < 5:
        return
    roles = roles_of(fake)
    parts = [{of_case[case] for case in part} for part in (roles.training, roles.deciding, roles.held_back)]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_of_an_official_test_set_the_held_out_cases_are_held_back() -> None:
    fake = FakeDataset(cases=30)
    names = [case_name(k) for k in range(30)]
    official = Splits(folds=(Fold(tuple(names[:20]), tuple(names[20:])),), reason="official")
    roles = roles_of(fake, official)
    assert roles.held_back == tuple(names[20:]) and set(roles.training) | set(roles.deciding) == set(names[:20])
    assert "the held-out cases of the given folds are held back" in roles.reason


def test_few_cases_decide_in_a_large_dataset_and_whole_patients() -> None:
    fake = FakeDataset(cases=1200, groups={k: f"p{k // 3}" for k in range(1200)})
    roles = roles_of(fake)
    assert 100 <= len(roles.deciding) <= 102 and len(roles.held_back) == pytest.approx(360, abs=9)
    patients = [{int(case[5:]) // 3 for case in part} for part in (roles.deciding, roles.training)]
    assert not patients[0] & patients[1]


def test_the_seed_decides_which() -> None:
    fake = FakeDataset(cases=60)
    assert roles_of(fake) == roles_of(fake) != roles_of(fake, seed=1)


def test_too_few_patients_are_refused() -> None:
    fake = FakeDataset(cases=20, groups={k: f"p{k % 4}" for k in range(20)})
    with pytest.raises(AutosegError, match="4 independent patient"):
        roles_of(fake)
