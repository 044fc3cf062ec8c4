from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.splits import _assign_folds, check_splits, make_splits, read_splits, with_groups, with_inner_cases
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import write_artefact
from tests.planning.fingerprints import FakeDataset, case_name


def split(fake: FakeDataset, folds: int = 5, seed: int = 0) -> Splits:
    return make_splits(fake.fingerprint, fake.spec, folds, seed)


def test_every_case_is_validated_once_and_trained_on_otherwise() -> None:
    splits = split(FakeDataset(cases=53))
    everything = {case_name(k) for k in range(53)}
    validated = [name for fold in splits.folds for name in fold.validation]
    assert sorted(validated) == sorted(everything)
    for fold in splits.folds:
        assert set(fold.train) == everything - set(fold.validation)
        assert 9 <= len(fold.validation) <= 12


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=24, max_size=40),
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), max_size=5),
)
def test_patients_and_duplicates_never_cross_a_split(patients: list[int], pairs: list[tuple[int, int]]) -> None:
    groups = {k: f"p{patient}" for k, patient in enumerate(patients) if patient}
    fake = FakeDataset(cases=len(patients), groups=groups, duplicates=tuple(pair for pair in pairs if pair[0] != pair[1]))
    if len(set(patients)) < 2:
        return
    try:
        splits = split(fake)
    except AutosegError:
        return
    check_splits(splits, fake.fingerprint, fake.spec)
    for fold in splits.folds:
        validation = {int(name[-3:]) for name in fold.validation}
        for first, second in fake.duplicates:
            assert (first in validation) == (second in validation)
        for one, patient in groups.items():
            assert all((other in validation) == (one in validation) for other, same in groups.items() if same == patient)


def test_patients_joined_by_a_duplicate_stay_together() -> None:
    groups = {k: f"p{k // 2}" for k in range(20)}
    fake = FakeDataset(cases=23, groups=groups, duplicates=((1, 2), (20, 21)))
    stored = with_groups(split(fake), fake.fingerprint, fake.spec)
    assert case_name(22) not in stored.groups and len(stored.groups) == 22
    of_case = [stored.case_groups({})[case_name(k)] for k in range(23)]
    assert len(set(of_case)) == 11 and len(set(of_case[:4])) == 1 and of_case[20] == of_case[21] != of_case[22]
    for fold in split(fake).folds:
        sides = {case_name(k) in fold.validation for k in (0, 1, 2, 3)}
        assert len(sides) == 1


def test_groups_of_dataset_json_count_too() -> None:
    fake = FakeDataset(cases=20)
    spec = fake.spec
    spec.groups.update({case_name(k): "same" for k in range(6)})
    for fold in make_splits(fake.fingerprint, spec).folds:
        assert len({case_name(k) in fold.validation for k in range(6)}) == 1


def test_a_rare_class_is_in_every_fold() -> None:
    fake = FakeDataset(cases=60, classes={"common": 50.0, "rare": 40.0}, presence={"rare": 0.2})
    for fold in split(fake).folds:
        rare = sum(int(name[-3:]) < 12 for name in fold.validation)
        assert 1 <= rare <= 4


def test_foreground_sizes_are_spread() -> None:
    for fold in split(FakeDataset(cases=70)).folds:
        large = sum(int(name[-3:]) % 7 >= 5 for name in fold.validation)
        assert 2 <= large <= 6, "of 20 large ones in 5 folds"


def test_inner_cases_are_an_eighth_of_the_training_cases_with_their_patients_and_strata() -> None:
    fake = FakeDataset(cases=80, groups={index: f"p{index // 2}" for index in range(80)})
    for fold in split(fake).folds:
        assert set(fold.inner) < set(fold.train) and not set(fold.inner) & set(fold.validation)
        assert abs(len(fold.inner) - len(fold.train) / 8) <= 2  # a patient has two cases
        outside = set(fold.train) - set(fold.inner)
        patients = [{int(name[-3:]) // 2 for name in names} for names in (fold.inner, outside)]
        assert not patients[0] & patients[1]


def test_all_training_cases_of_one_patient_give_no_inner_ones() -> None:
    fake = FakeDataset(cases=8, groups={index: "a" if index < 4 else "b" for index in range(8)})
    assert [fold.inner for fold in split(fake, folds=2).folds] == [(), ()]


def test_inner_cases_of_a_file_are_checked() -> None:
    fake = FakeDataset(cases=10, groups={0: "p", 1: "p"})
    train, validation = tuple(map(case_name, range(6))), tuple(map(case_name, range(6, 10)))
    splits = Splits(folds=(Fold(train, validation, (case_name(0), case_name(9))), Fold(train, validation, train)), reason="")
    with pytest.raises(SeveralProblems) as caught:
        check_splits(splits, fake.fingerprint)
    text = str(caught.value)
    assert "inner: case_009 is not in train" in text and "case_001 (train) and an inner case are of one patient" in text
    assert "fold 1, inner: all training cases" in text


def test_folds_depend_on_the_seed_only() -> None:
    fake = FakeDataset(cases=40)
    assert split(fake, seed=3) == split(fake, seed=3)
    assert split(fake, seed=3).folds != split(fake, seed=4).folds


def test_folds_are_the_same_in_every_version_of_scikit_learn() -> None:
    """Pinned: a plan made again elsewhere must give the same folds."""
    strata, groups = ["large"] * 6 + ["small"] * 9, [f"p{k // 2}" for k in range(15)]
    assert _assign_folds(strata, groups, 3, 0).tolist() == [0, 0, 2, 2, 1, 1, 1, 1, 0, 0, 2, 2, 0, 0, 1]


def test_tiny_sets_get_fewer_folds_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="autoseg"):
        splits = split(FakeDataset(cases=3))
    assert len(splits.folds) == 3 and "3 folds instead of 5" in caplog.text and "5 were asked for" in splits.reason
    with pytest.raises(AutosegError, match="only one case"):
        split(FakeDataset(cases=1))
    with pytest.raises(AutosegError, match=r"one group \(6 cases"):
        split(FakeDataset(cases=6, groups=dict.fromkeys(range(6), "p")))
    with pytest.raises(AutosegError, match="at least 2"):
        split(FakeDataset(), folds=1)


def test_the_reason_names_what_was_kept_together() -> None:
    groups = {k: f"p{k // 2}" for k in range(30)}
    because = split(FakeDataset(cases=30, groups=groups, duplicates=((0, 1), (4, 8)))).reason
    assert "15 patients kept whole" in because and "4 cases in 2 clusters" in because
    missing = split(FakeDataset(cases=30, classes={"a": 9.0, "b": 9.0}, presence={"b": 0.1})).reason
    assert "b (3 cases) is missing in the validation of fold" in missing


def test_splits_files_are_read_in_both_formats(tmp_path: Path) -> None:
    fake = FakeDataset(cases=10)
    ours = split(fake, folds=2)
    write_artefact(tmp_path / "ours.json", ours)
    assert read_splits(tmp_path / "ours.json", fake.fingerprint, fake.spec) == ours
    theirs = [{"train": fold.train, "val": fold.validation} for fold in ours.folds]
    (tmp_path / "splits_final.json").write_text(json.dumps(theirs))
    read = read_splits(tmp_path / "splits_final.json", fake.fingerprint, fake.spec)
    assert not any(fold.inner for fold in read.folds)
    assert with_inner_cases(read, fake.fingerprint, fake.spec).folds == ours.folds


@pytest.mark.parametrize("text", ["nonsense", "{}", '[{"train": ["case_000"]}]', '[["case_000"]]', "[3]"])
def test_a_file_without_splits_raises(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    fake = FakeDataset(cases=10)
    with pytest.raises(AutosegError, match="is no splits file"):
        read_splits(tmp_path / "s.json", fake.fingerprint, fake.spec)
    with pytest.raises(AutosegError, match="no splits file"):
        read_splits(tmp_path / "missing.json", fake.fingerprint, fake.spec)


def test_all_leaks_are_listed_at_once() -> None:
    fake = FakeDataset(cases=10, groups={0: "p", 1: "p"}, duplicates=((4, 5),))
    fold = Fold(("case_000", "case_003", "case_004", "cas_007"), ("case_001", "case_003", "case_005"))
    with pytest.raises(SeveralProblems) as raised:
        check_splits(Splits(folds=(fold, Fold(("case_008",), ())), reason="given"), fake.fingerprint, fake.spec)
    text = "\n".join(raised.value.problems)
    assert "case_001 (validation) and case_000 (train) are of one patient" in text
    assert "case_005 (validation) and case_004 (train)" in text
    assert "case_003 is in train and in validation" in text
    assert "no case 'cas_007' (did you mean 'case_007'?)" in text
    assert "fold 1, validation: no cases" in text
    assert len(raised.value.problems) == 5
