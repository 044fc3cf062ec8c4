"""Makes the tables of documentation/reporting.md from the checklists of model cards.

`python -m tests.documentation.reporting` writes them into the page.
"""

from __future__ import annotations

import re

from autoseg.card.checklists import CLAIM, TRIPOD_AI, YOU, Item
from tests.documentation.pages import REPOSITORY

PAGE = REPOSITORY / "documentation" / "reporting.md"
_BLOCK = re.compile(r"(<!-- table: ([\w+ ]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
CHECKLISTS = {"CLAIM 2024": CLAIM, "TRIPOD+AI": TRIPOD_AI}


def state(item: Item) -> str:
    """given, by option, or you must state."""
    if item.answer == YOU:
        return YOU
    return "by option" if item.answer.startswith("option: ") else "given"


def table(items: tuple[Item, ...]) -> str:
    counts = ", ".join(f"{sum(state(one) == kind for one in items)} {kind}" for kind in ("given", "by option", YOU))
    of_kinds = any(one.studies for one in items)
    heading, line = f"| item |{' studies |' * of_kinds} state | where |", f"|---|{'---|' * of_kinds}---|---|"
    lines = [f"{len(items)} items: {counts}.", "", heading, line]
    for one in items:
        where = "" if one.answer == YOU else one.answer.removeprefix("option: ")
        lines.append(f"| {one.number} {one.topic} |{f' {one.studies} |' * of_kinds} {state(one)} | {where} |")
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    return _BLOCK.sub(lambda match: match[1] + table(CHECKLISTS[match[2]]) + match[3], page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
