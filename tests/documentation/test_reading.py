"""The tables of documentation/reading.md say what reading gives today."""

import pytest

from tests.documentation import reading


def test_the_page_says_what_reading_gives(tmp_path):
    pytest.importorskip("pydicom")
    pytest.importorskip("nibabel")
    page = reading.PAGE.read_text(encoding="utf-8")
    updated = reading.with_tables(page, tmp_path)
    assert updated == page, "run python -m tests.documentation.reading"
    assert all(f"<!-- table: {name} -->" in page for name in reading.TABLES)
