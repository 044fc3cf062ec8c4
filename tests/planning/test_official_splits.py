"""Published names or cases.csv decide which cases are the publisher's test cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.planning.official_splits import NAMED, make_official_splits
from autoseg.planning.splits import check_splits
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Splits
from autoseg.support.errors import AutosegError
from tests.planning.fingerprints import FakeDataset

# Three names of each part, as autoseg_convert writes them.
NAMES = {
    "DRIVE": (["21_training", "22_training", "40_training"], ["01_test", "20_test"]),
    "FIVES": (["train_1_A", "train_600_N", "train_33_D"], ["test_1_A", "test_200_G"]),
    "GlaS": (["train_1", "train_85", "train_3"], ["testA_1", "testB_20"]),
    "ACDC": (
        ["patient001_frame01_slice05", "patient099_frame12", "patient100_frame01_000"],
        ["patient101_frame01_slice1", "patient150_frame10_003"],
    ),
    "MoNuSeg": (
        ["TCGA-A7-A13E-01Z-00-DX1", "TCGA-18-5592-01Z-00-DX1", "TCGA-RD-A8N9-01A-01-TS1"],
        ["TCGA-2Z-A9J9-01A-01-TS1", "TCGA-ZF-A9R5-01A-01-TS1"],
    ),
}


def named(names: list[str], groups: dict[str, str] | None = None) -> Fingerprint:
    fake = FakeDataset(cases=len(names)).fingerprint
    group = groups or {}
    cases = (replace(case, case=name, group=group.get(name, "")) for case, name in zip(fake.cases, names, strict=True))
    return replace(fake, cases=tuple(cases))


def official(names: list[str], folder: Path, groups: dict[str, str] | None = None) -> Splits:
    return make_official_splits(named(names, groups), FakeDataset().spec, folder)


@pytest.mark.parametrize("title", NAMES)
def test_published_names_decide(title: str, tmp_path: Path) -> None:
    training, test = NAMES[title]
    splits = official([*test, *training], tmp_path)
    (fold,) = splits.folds
    assert (list(fold.train), list(fold.validation), fold.inner) == (sorted(training), sorted(test), ())
    assert splits.official == title and splits.given == "official" and title in splits.reason


def test_every_named_set_is_tested() -> None:
    assert {one.title for one in NAMED} == set(NAMES)


def test_monuseg_has_fourteen_test_images() -> None:
    (monuseg,) = (one for one in NAMED if one.title == "MoNuSeg")
    assert len(set(monuseg.test.split("|"))) == 14


@pytest.mark.parametrize("stranger", ["21_training_left", "121_training", "case_001", "patient151_frame01"])
def test_a_name_that_is_not_published_decides_nothing(stranger: str, tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="nothing says which cases are the official test cases"):
        official(["21_training", "01_test", stranger], tmp_path)


def write_table(folder: Path, parts: dict[str, str]) -> None:
    rows = "".join(f"{name},Tr,,{part}\n" for name, part in parts.items())
    (folder / "cases.csv").write_text(f"case,part,group,split\n{rows}")


def test_the_table_of_the_conversion_decides_with_validation_cases_inside(tmp_path: Path) -> None:
    parts = {"ISIC_1": "training", "ISIC_2": "Validation", "ISIC_3": "test", "ISIC_4": "training"}
    write_table(tmp_path, parts)
    splits = official(list(parts), tmp_path)
    (fold,) = splits.folds
    assert fold.train == ("ISIC_1", "ISIC_2", "ISIC_4") and fold.validation == ("ISIC_3",) and fold.inner == ("ISIC_2",)
    assert "2 training, 1 validation and 1 test cases" in splits.reason


def test_faults_of_the_table_are_named(tmp_path: Path) -> None:
    write_table(tmp_path, {"a": "training", "b": "tset"})
    with pytest.raises(AutosegError, match="'tset' in the column split"):
        official(["a", "b"], tmp_path)
    write_table(tmp_path, {"a": "training", "b": "test"})
    with pytest.raises(AutosegError, match="for 1 cases, such as c, not"):
        official(["a", "b", "c"], tmp_path)
    (tmp_path / "cases.csv").write_bytes(b"case,split\n\xff\xfe,test\n")
    with pytest.raises(AutosegError, match="cannot be read"):
        official(["a"], tmp_path)


def test_without_test_cases_the_way_to_get_them_is_named(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match="official split of DRIVE needs its test cases.*\n.*--merge-test"):
        official(["21_training", "22_training"], tmp_path)


def test_patients_on_both_sides_are_the_publishers_and_said(tmp_path: Path) -> None:
    names = ["train_1", "train_2", "testA_1"]
    groups = {"train_1": "p1", "train_2": "p2", "testA_1": "p1"}
    splits = official(names, tmp_path, groups)
    assert "warning: 1 patients or pictures are on both sides" in splits.reason
    fingerprint = named(names, groups)
    check_splits(splits, fingerprint)
    with pytest.raises(AutosegError, match="are of one patient"):
        check_splits(replace(splits, official=""), fingerprint)
