"""The folds follow the content of the images: names, order and masks change nothing, patients and duplicates stay together."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autoseg.planning.canonical_splits import make_canonical_splits, subset, without
from autoseg.planning.splits import check_splits, with_inner_cases
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError
from tests.planning.fingerprints import FakeDataset, case_name


def canonical(fake: FakeDataset, folds: int = 5, seed: int = 0) -> Splits:
    return make_canonical_splits(fake.fingerprint, fake.spec, folds, seed)


def renamed_and_shuffled(fingerprint: Fingerprint, seed: int) -> Fingerprint:
    """The same images under other names, in another order."""
    order = list(fingerprint.cases)
    random.Random(seed).shuffle(order)
    names = {case.case: f"other_{place:04d}" for place, case in enumerate(order)}
    duplicates = [tuple(sorted(names[name] for name in cluster)) for cluster in fingerprint.duplicates]
    return replace(
        fingerprint,
        cases=tuple(replace(case, case=names[case.case], group=f"x{case.group}" if case.group else "") for case in order),
        duplicates=tuple(sorted(duplicates)),
    )


def by_content(splits: Splits, fingerprint: Fingerprint) -> list[tuple[set[str], set[str], set[str]]]:
    hashes = {case.case: case.pixel_hash for case in fingerprint.cases}
    return [
        ({hashes[n] for n in fold.train}, {hashes[n] for n in fold.validation}, {hashes[n] for n in fold.inner})
        for fold in splits.folds
    ]


@pytest.mark.parametrize("cases", [7, 53, 200])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_names_and_order_change_nothing(cases: int, seed: int) -> None:
    groups = {k: f"p{k // 3}" for k in range(cases // 2)}
    fake = FakeDataset(cases=cases, groups=groups, duplicates=((cases - 1, cases - 2), (0, cases - 3)))
    other = renamed_and_shuffled(fake.fingerprint, seed)
    ours = by_content(canonical(fake), fake.fingerprint)
    assert by_content(make_canonical_splits(other, fake.spec), other) == ours


def test_masks_change_nothing() -> None:
    plain, rare = FakeDataset(cases=60), FakeDataset(cases=60, classes={"a": 3.0, "b": 9.0}, presence={"a": 0.1})
    assert canonical(plain).folds == canonical(rare).folds


def test_every_case_is_validated_once_and_parts_are_equal() -> None:
    splits = canonical(FakeDataset(cases=101))
    validated = [name for fold in splits.folds for name in fold.validation]
    assert sorted(validated) == [case_name(k) for k in range(101)]
    assert {len(fold.validation) for fold in splits.folds} <= {20, 21}
    for fold in splits.folds:
        assert set(fold.train) == set(validated) - set(fold.validation)


def test_patients_and_duplicates_stay_together_also_inside() -> None:
    fake = FakeDataset(cases=90, groups={k: f"p{k // 4}" for k in range(60)}, duplicates=((60, 61, 62), (3, 70)))
    splits = canonical(fake)
    check_splits(splits, fake.fingerprint, fake.spec)
    for fold in splits.folds:
        assert 0 < len(fold.inner) <= len(fold.train) / 8 + 8
    assert with_inner_cases(splits, fake.fingerprint, fake.spec) == splits


def test_one_more_image_moves_few_others() -> None:
    """So that two labs whose copies differ by an image have nearly the same folds."""
    before, after = (
        {name: number for number, fold in enumerate(canonical(FakeDataset(cases=cases)).folds) for name in fold.validation}
        for cases in (300, 301)
    )
    assert sum(after[name] != number for name, number in before.items()) <= 4


def test_the_seed_makes_other_folds() -> None:
    fake = FakeDataset(cases=40)
    assert canonical(fake, seed=1).folds != canonical(fake).folds == canonical(fake).folds


def test_pinned() -> None:
    """Folds that people quote: they may never change."""
    assert [fold.validation for fold in canonical(FakeDataset(cases=10)).folds] == [
        ("case_003", "case_007"),
        ("case_002", "case_004"),
        ("case_001", "case_005"),
        ("case_000", "case_008"),
        ("case_006", "case_009"),
    ]


def test_a_giant_patient_leaves_no_fold_empty() -> None:
    fake = FakeDataset(cases=50, groups=dict.fromkeys(range(44), "giant"))
    splits = canonical(fake)
    assert len(splits.folds) == 5 and all(fold.validation and fold.train for fold in splits.folds)
    check_splits(splits, fake.fingerprint, fake.spec)


def test_fewer_groups_than_folds(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeDataset(cases=9, groups={k: f"p{k % 3}" for k in range(9)})
    assert len(canonical(fake).folds) == 3 and "3 folds instead of 5" in caplog.text
    with pytest.raises(AutosegError, match="only one group"):
        canonical(FakeDataset(cases=9, groups=dict.fromkeys(range(9), "p")))


def test_two_groups_train_on_one_and_keep_no_inner_cases() -> None:
    fake = FakeDataset(cases=8, groups={k: "a" if k < 4 else "b" for k in range(8)})
    assert [fold.inner for fold in canonical(fake).folds] == [(), ()]


def test_the_reason_names_the_rule_and_what_is_missing() -> None:
    fake = FakeDataset(cases=20, classes={"common": 9.0, "rare": 9.0}, presence={"rare": 0.05})
    reason = canonical(fake).reason
    assert reason.startswith("canonical rule, seed 0: 5 folds over 20 cases") and "stratified" not in reason
    assert "rare (1 cases) is missing in the validation of fold" in reason


def test_a_subset_is_the_same_for_everybody_and_keeps_groups_and_sides() -> None:
    fake = FakeDataset(cases=100, groups={k: f"p{k // 3}" for k in range(60)}, duplicates=((61, 70),))
    splits = canonical(fake)
    small = subset(splits, fake.fingerprint, fake.spec, 30)
    kept = {name for fold in small.folds for name in fold.validation}
    assert 25 <= len(kept) <= 35 and small.reason.startswith(f"{len(kept)} cases of: canonical rule")
    check_splits(small, fake.fingerprint, fake.spec)
    for before, after in zip(splits.folds, small.folds, strict=True):
        assert set(after.validation) == set(before.validation) & kept and set(after.inner) <= set(after.train)
        assert 4 <= len(after.validation) <= 8
    for patient in range(20):
        members = {case_name(k) for k in range(60) if k // 3 == patient}
        assert members <= kept or not members & kept
    other = renamed_and_shuffled(fake.fingerprint, 5)
    theirs = subset(make_canonical_splits(other, fake.spec), other, fake.spec, 30)
    assert by_content(theirs, other) == by_content(small, fake.fingerprint)
    assert subset(splits, fake.fingerprint, fake.spec, 100) == splits


def test_duplicates_that_are_left_out_are_in_no_fold() -> None:
    fake = FakeDataset(cases=20, duplicates=((3, 7),))
    splits = canonical(fake)
    fewer = without(splits, [case_name(7)])
    used = {name for fold in fewer.folds for name in (*fold.train, *fold.validation)}
    assert used == {case_name(k) for k in range(20) if k != 7}
    assert all(case_name(7) not in fold.inner for fold in fewer.folds) and "1 duplicates are in no fold" in fewer.reason
    check_splits(fewer, fake.fingerprint, fake.spec)
    assert without(splits, []) == splits


def test_a_subset_of_an_official_split_keeps_its_shares() -> None:
    fake = FakeDataset(cases=80)
    names = [case_name(k) for k in range(80)]
    splits = Splits(folds=(Fold(tuple(names[:60]), tuple(names[60:]), tuple(names[:8])),), reason="official", official="X")
    (fold,) = subset(splits, fake.fingerprint, fake.spec, 20).folds
    assert (len(fold.train), len(fold.validation)) == (15, 5)
