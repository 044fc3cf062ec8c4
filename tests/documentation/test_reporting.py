"""The tables of documentation/reporting.md are those of the checklists."""

from tests.documentation import reporting


def test_the_page_has_the_items_of_the_cards() -> None:
    page = reporting.PAGE.read_text(encoding="utf-8")
    assert reporting.with_tables(page) == page, "write it anew: python -m tests.documentation.reporting"
    assert all(f"<!-- table: {name} -->" in page for name in reporting.CHECKLISTS)
