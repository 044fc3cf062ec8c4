"""Folds as text that names images by content: written, read, compared with datasets that differ."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.planning.canonical_splits import make_canonical_splits
from autoseg.planning.split_file import is_split_file, match_cases, read_split_file, split_rows, splits_id, to_splits, to_text
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from tests.planning.fingerprints import FakeDataset


def fingerprint(hashes: list[str], names: list[str] | None = None) -> Fingerprint:
    fake = FakeDataset(cases=len(hashes)).fingerprint
    names = names or [case.case for case in fake.cases]
    cases = (
        replace(case, case=name, pixel_hash=hashlib.md5(content.encode()).hexdigest())
        for case, name, content in zip(fake.cases, names, hashes, strict=True)
    )
    return replace(fake, cases=tuple(cases))


HERE = fingerprint(list("abcdefgh"))
SPLITS = make_canonical_splits(HERE, FakeDataset().spec, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folds.txt"
    path.write_text(to_text(SPLITS, HERE))
    return path


def test_the_same_images_under_other_names_get_the_same_folds(file: Path) -> None:
    other = fingerprint(list("hgfedcba"), [f"x {k}" for k in range(8)])
    match = match_cases(read_split_file(file), other)
    assert match.exact and match.differences() == []
    splits = to_splits(match, file.name)
    assert split_rows(splits, other, names=False) == split_rows(SPLITS, HERE, names=False)
    assert splits_id(split_rows(splits, other)) == match.id and match.id in splits.given and match.id in splits.reason


def test_a_round_trip_gives_the_same_folds(file: Path) -> None:
    assert to_splits(match_cases(read_split_file(file), HERE), "f").folds == SPLITS.folds


def test_the_text_is_readable_and_says_how_it_was_made(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0] == "autoseg splits 1" and lines[1] == f"id: {splits_id(split_rows(SPLITS, HERE))}"
    assert "folds: 3" in lines and "cases: 8" in lines and any(line.startswith("made: canonical rule") for line in lines)
    assert sum("case_00" in line for line in lines) == 8
    assert is_split_file(file)


def test_names_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "folds.txt"
    path.write_text(to_text(SPLITS, HERE, names=False))
    assert "case_00" not in path.read_text()
    match = match_cases(read_split_file(path), fingerprint(list("abcdefgX")))
    assert match.missing[0].startswith("an image (") and match.extra == ("case_007",) and not match.changed


def test_missing_extra_and_changed_cases_are_listed(file: Path) -> None:
    """a is gone, b was changed under its name, z is new."""
    other = fingerprint(list("Bcdefghz"), ["case_001", *(f"r{k}" for k in range(6)), "new"])
    match = match_cases(read_split_file(file), other)
    assert len(match.missing) == 1 and match.missing[0].startswith("case_000 (")
    assert match.changed == ("case_001",) and match.extra == ("new",) and len(match.sides) == 6 and not match.exact
    with pytest.raises(SeveralProblems) as caught:
        to_splits(match, file.name)
    text = str(caught.value)
    assert "missing: case_000" in text and "changed: case_001" in text and "extra: new" in text and "--partial-splits" in text


def test_partial_takes_changed_cases_by_name_and_leaves_missing_ones_out(file: Path) -> None:
    other = fingerprint(list("Bcdefghz"), ["case_001", *(f"case_{k:03d}" for k in range(2, 8)), "new"])
    match = match_cases(read_split_file(file), other)
    splits = to_splits(match, file.name, partial=True)
    for ours, theirs in zip(SPLITS.folds, splits.folds, strict=True):
        assert set(theirs.validation) == set(ours.validation) - {"case_000"}
    assert "1 missing, 1 changed, 1 extra" in splits.given
    assert splits_id(split_rows(splits, other)) != match.id


def test_extra_cases_alone_are_no_error_and_in_no_fold(file: Path) -> None:
    splits = to_splits(match_cases(read_split_file(file), fingerprint(list("abcdefghz"))), "f")
    assert splits.folds == SPLITS.folds and "1 extra" in splits.given


def test_copies_of_one_image_are_matched_in_number(tmp_path: Path) -> None:
    twice = replace(fingerprint(list("aabcd")), duplicates=(("case_000", "case_001"),))
    splits = make_canonical_splits(twice, FakeDataset().spec, 2)
    path = tmp_path / "folds.txt"
    path.write_text(to_text(splits, twice))
    read = read_split_file(path)
    assert match_cases(read, fingerprint(list("dcbaa"))).exact
    once = match_cases(read, fingerprint(list("dcba")))
    assert len(once.missing) == 1 and not once.extra
    thrice = match_cases(read, fingerprint(list("dcbaaa")))
    assert thrice.exact and len({thrice.sides[f"case_00{k}"] for k in (3, 4, 5)}) == 1


def test_unused_cases_and_several_uses_of_a_copy(tmp_path: Path) -> None:
    """One of two copies is trained on, the other is in no fold: each name keeps its side."""
    here = fingerprint(list("aabc"))
    splits = Splits(folds=(Fold(("case_001", "case_002"), ("case_003",)),), reason="by hand")
    rows = split_rows(splits, here)
    assert len(rows) == 3
    path = tmp_path / "folds.txt"
    path.write_text(to_text(splits, here))
    (fold,) = to_splits(match_cases(read_split_file(path), fingerprint(list("abc"))), "f").folds
    assert fold.train == ("case_000", "case_001") and fold.validation == ("case_002",)


def test_the_id_knows_content_and_sides_only() -> None:
    rows = split_rows(SPLITS, HERE)
    same = split_rows(SPLITS, HERE, names=False)
    assert splits_id(rows) == splits_id(reversed(same))
    assert splits_id(rows) != splits_id(rows[1:])
    turned = replace(SPLITS, folds=SPLITS.folds[::-1])
    assert splits_id(split_rows(turned, HERE)) != splits_id(rows)
    assert len(splits_id(rows)) == 14


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n\n", "\n\nnot a line\n", "line 10: expected a hash"),
        ("id: ", "id: 0", "was changed: its id is 0"),
        ("id: ", "was: ", "was changed: its id is missing"),
        ("  v", "  vt", "letters, one is expected for each fold"),
        ("cases: 8\n", "cases: 8\n\n", "expected a hash"),
    ],
)
def test_damage_is_named(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(AutosegError, match=message):
        read_split_file(file)


def test_a_side_that_was_changed_by_hand_is_noticed(file: Path) -> None:
    text = file.read_text()
    line = text.splitlines()[-1]
    sides = line.split()[1]
    file.write_text(text.replace(line, line.replace(sides, sides[::-1])))
    with pytest.raises(AutosegError, match="was changed"):
        read_split_file(file)


def test_windows_line_ends_do_not_matter(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert is_split_file(file) and match_cases(read_split_file(file), HERE).exact


def test_other_files_are_none(tmp_path: Path) -> None:
    assert not is_split_file(tmp_path / "absent") and not is_split_file(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    assert not is_split_file(tmp_path / "x.json")
    (tmp_path / "bad").write_bytes(b"autoseg splits 1\nid: \xff\n")
    with pytest.raises(AutosegError, match="cannot be read"):
        read_split_file(tmp_path / "bad")
