from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from autoseg.schema.study import StudyRecord
from autoseg.study.numbers import numbers
from autoseg.study.tables import study_tables, to_csv, to_markdown, write_results
from autoseg.support.files import read_artefact
from tests.study.studies import study
from tests.study.test_numbers import OURS, READERS

MARK = "SMALL SCALE: tiny. Not comparable with the published numbers."


def record(mark: str = "") -> StudyRecord:
    return StudyRecord(
        study="mine", title="My study", source="me 2026", datasets=("A", "B"),
        scale="small" if mark else "full", mark=mark, numbers=numbers(study(), OURS, READERS),
        deviations=("one thing", "another | thing"), families={"specialist": ("unet",), "generalist": ("segformer",)},
        splits={"A": "0000-1111-2222"}, hours=1.25, failed=("a job",),
        versions={"autoseg": "9.9"},
    )  # fmt: skip


def test_ours_published_and_the_difference_stand_side_by_side() -> None:
    first = next(study_tables(record()))
    assert first.title == "mDSC"
    assert first.headings == ("model", "A", "published", "difference", "B", "published", "difference")
    assert first.rows[0] == ("unet", "75.0 ± 7.1", "80.0 ± 1.5", "-5.0", "60.0", "70.0", "-10.0")
    assert first.rows[1] == ("SegFormer", "90.0 ± 0.0", "85.0", "+5.0", "", "", "")


def test_a_dataset_in_the_place_of_another_is_in_the_heading() -> None:
    tables = list(study_tables(replace(record(), used={"A": "MyHearts"})))
    assert tables[0].headings[1] == "MyHearts for A" and tables[-1].rows[0][1] == "MyHearts for A"


def test_averages_that_nobody_published_have_one_column() -> None:
    recall = next(table for table in study_tables(record()) if table.title == "mRec")
    assert recall.headings == ("model", "A", "B") and "nothing is published" in recall.note


def test_each_kind_has_its_table() -> None:
    titles = [table.title for table in study_tables(record())]
    assert titles == [
        "mDSC", "Dice of lesion", "Dice on the easy cases", "HD95 on the hard cases",
        "HD95_diagonal on the hard cases", "mIoU", "mPrec", "mRec",
        "mDSC of families",
    ]  # fmt: skip


def test_every_table_of_a_small_study_says_so() -> None:
    for table in study_tables(record(MARK)):
        assert MARK in table.note
    for table in study_tables(record()):
        assert "SMALL" not in table.note
    text = to_markdown(record(MARK))
    assert text.count(MARK) == 1 + 9
    assert all(row["scale"] == "small" for row in csv.DictReader(io.StringIO(to_csv(record(MARK)))))


def test_the_page_has_folds_deviations_and_failures() -> None:
    text = to_markdown(record())
    assert "- A: 0000-1111-2222" in text and "- one thing" in text and "## Without results\n\n- a job" in text
    assert "me 2026, repeated with autoseg 9.9" in text and "1.2 hours" in text
    assert "| unet | 75.0 ± 7.1 | 80.0 ± 1.5 | -5.0 |" in text


def test_csv_has_one_row_for_each_number() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(record()))))
    assert len(rows) == len(record().numbers)
    assert rows[0]["ours"] == "75.0000" and rows[0]["published"] == "80" and rows[0]["difference"] == "-5.0000"


def test_files_are_written_and_read_again(tmp_path: Path) -> None:
    write_results(tmp_path, record())
    again = read_artefact(tmp_path / "study.json", StudyRecord)
    assert again.deviations == record().deviations and len(again.numbers) == len(record().numbers)
    assert {path.name for path in tmp_path.iterdir()} == {"study.json", "study.md", "study.csv"}
