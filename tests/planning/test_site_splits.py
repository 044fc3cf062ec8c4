"""Folds that leave one site out."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg import api
from autoseg.cli import plan_and_preprocess
from autoseg.io.metadata import Metadata, read_metadata
from autoseg.planning.site_splits import make_site_splits
from autoseg.support.errors import AutosegError, SeveralProblems
from tests.comparison.results import make
from tests.planning.fingerprints import FakeDataset

SITES = ("berlin", "bern", "basel")


def table(fake: FakeDataset, **changed: str) -> Metadata:
    """The sites in turn. changed: case -> site."""
    sites = {case.case: SITES[number % 3] for number, case in enumerate(fake.fingerprint.cases)} | changed
    return Metadata(Path("cases.csv"), {"site": {case: site for case, site in sites.items() if site}})


def test_each_fold_holds_out_the_cases_of_one_site() -> None:
    fake = FakeDataset(cases=20)
    splits = make_site_splits(fake.fingerprint, fake.spec, "by=site", table(fake))
    names = [case.case for case in fake.fingerprint.cases]
    assert len(splits.folds) == 3 and splits.given == "by=site"
    for site, fold in zip(sorted(SITES), splits.folds, strict=True):
        expected = [name for number, name in enumerate(names) if SITES[number % 3] == site]
        assert list(fold.validation) == expected and set(fold.train) == set(names) - set(expected)
    assert "leave one site out" in splits.reason and "0: basel (6), 1: berlin (7), 2: bern (7)" in splits.reason


def test_names_may_tell_the_site() -> None:
    fake = FakeDataset(cases=20)
    last = "by=case=(\\d)$"
    splits = make_site_splits(fake.fingerprint, fake.spec, last, None)
    assert len(splits.folds) == 10
    for digit, fold in enumerate(splits.folds):
        assert all(name.endswith(str(digit)) for name in fold.validation) and len(fold.validation) == 2
    whole = make_site_splits(fake.fingerprint, fake.spec, "by=case=\\d$", None)
    assert whole.folds == splits.folds


@pytest.mark.parametrize(
    ("asked", "metadata", "problem", "remedy"),
    [
        ("by=site", None, "the site of each case is not known", "--metadata FILE"),
        ("by=scanner", table(FakeDataset(cases=6)), "has no column 'scanner'", "its columns: site"),
        ("by=case=(berlin)", None, "6 of 6 cases have no case=", "leave these cases out"),
        ("by=case=((", None, "the pattern of --splits", "berlin"),
        ("by=case=(case)", None, "has 1 different values", "site or scanner"),
    ],
)
def test_what_cannot_be_left_out_is_named(asked: str, metadata: Metadata | None, problem: str, remedy: str) -> None:
    fake = FakeDataset(cases=6)
    with pytest.raises(AutosegError) as caught:
        make_site_splits(fake.fingerprint, fake.spec, asked, metadata)
    assert problem in caught.value.problem and remedy in (caught.value.remedy or ""), caught.value


def test_a_case_without_a_site_is_named_and_numbers_are_no_sites() -> None:
    fake = FakeDataset(cases=40)
    first = fake.fingerprint.cases[0].case
    with pytest.raises(AutosegError, match=f"1 of 40 cases have no site: {first}"):
        make_site_splits(fake.fingerprint, fake.spec, "by=site", table(fake, **{first: ""}))
    ages = {case.case: str(number) for number, case in enumerate(fake.fingerprint.cases)}
    with pytest.raises(AutosegError, match="site has 40 different values"):
        make_site_splits(fake.fingerprint, fake.spec, "by=site", table(fake, **ages))


def test_a_patient_or_a_picture_in_two_sites_is_refused() -> None:
    fake = FakeDataset(cases=20, groups={0: "anna", 1: "anna"}, duplicates=((3, 4),))
    with pytest.raises(SeveralProblems, match="a patient or a picture is in two values of site") as caught:
        make_site_splits(fake.fingerprint, fake.spec, "by=site", table(fake))
    names = [case.case for case in fake.fingerprint.cases]
    text = " ".join(caught.value.problems)
    assert names[0] in text and names[1] in text and names[3] in text and names[4] in text


def test_planning_by_site_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make(tmp_path / "root", cases=12, folds=2, models=())
    names = sorted(path.stem for path in (experiment.dataset.raw / "labelsTr").glob("*.png"))
    file = tmp_path / "cases.csv"
    lines = [f"{name},{SITES[number % 3]}" for number, name in enumerate(names)]
    file.write_text("\n".join(["case,site", *lines]) + "\n")
    words = ["Polyps", "--root", str(experiment.root), "--models", "unet", "--device", "cpu", "--hours", "0"]
    words += ["--protocol", "quick", "--no-preprocess"]
    assert plan_and_preprocess.main([*words, "--splits", "by=site", "--metadata", str(file)]) == 0
    splits = api.splits_of("Polyps", experiment.root)
    assert [len(fold.validation) for fold in splits.folds] == [4, 4, 4] and all(fold.inner for fold in splits.folds)
    assert plan_and_preprocess.main(words) == 0
    assert api.splits_of("Polyps", experiment.root).folds == splits.folds, "they stay at the next planning"
    capsys.readouterr()
    assert plan_and_preprocess.main([*words, "--metadata", str(file)]) == 2
    assert "is not used" in capsys.readouterr().err


def test_two_spellings_of_a_site_are_refused() -> None:
    fake = FakeDataset(cases=6)
    with pytest.raises(AutosegError, match="upper and lower case or spaces only: Berlin and berlin"):
        make_site_splits(fake.fingerprint, fake.spec, "by=site", table(fake, case_000="Berlin"))


def test_missing_values_of_other_programs_are_no_site_and_two_lines_of_a_case_must_agree(tmp_path: Path) -> None:
    fake, path = FakeDataset(cases=3), tmp_path / "cases.csv"
    path.write_text("case;site;age\r\ncase_000;a;1\r\ncase_001;NA;2\r\ncase_002;nan;3\r\n", encoding="utf-8-sig")
    with pytest.raises(AutosegError, match="2 of 3 cases have no site: case_001, case_002"):
        make_site_splits(fake.fingerprint, fake.spec, "by=site", read_metadata(path))
    path.write_text("case,site\ncase_000,a\ncase_000.png,b\ncase_001,a\ncase_002,b\n")
    with pytest.raises(AutosegError, match="two different site for case_000"):
        make_site_splits(fake.fingerprint, fake.spec, "by=site", read_metadata(path))
    # Lines of cases that the dataset does not have are no fault.
    path.write_text("case,site\ncase_000,a\ncase_000.png,a\ncase_001,a\ncase_002,b\nother,c\n")
    folds = make_site_splits(fake.fingerprint, fake.spec, "by=site", read_metadata(path)).folds
    assert [len(fold.validation) for fold in folds] == [2, 1]
