"""Tables for the terminal, readable at any width: no word is broken, and no column of text is narrower than a short line.

A table that is too wide becomes several tables with the first columns repeated, or, if it has columns of text, a list of
records.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Rows = Sequence[Sequence[str]]
# Columns of a file or pipe, if the user sets no COLUMNS.
_FILE_WIDTH = 160
# Text in a narrower column is hard to read.
_READABLE = 36
# Names up to this length stay on one line, so that they can be searched and copied.
_LONGEST_NAME = 40
_PADDING = 3


def show_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], keys: int = 1) -> None:
    """Print a table, as wide as the terminal (for a file: COLUMNS, else 160).

    keys: number of columns that name a row; a table that is divided repeats them.
    """
    console = _console()
    cells = [list(row) for row in rows]
    if title:
        # A title of the table itself would wrap at the width of the columns.
        show_text(title)
    if _width(headings, cells) <= console.width:
        console.print(table(headings, cells, console.width))
    elif _has_text(headings, cells):
        console.print("\n".join(_records(headings, cells, console.width, keys)), markup=False, highlight=False, soft_wrap=True)
    else:
        for columns in _parts(headings, cells, console.width, keys):
            part = [[row[column] for column in columns] for row in cells]
            console.print(table([headings[column] for column in columns], part, console.width))


def show_text(text: str, indent: str = "") -> None:
    """Print a paragraph, broken between words at the width of the terminal."""
    _console().print(_wrapped(text, _console().width, indent, indent), markup=False, highlight=False, soft_wrap=True)


def show_entries(title: str, entries: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Print a heading for each entry, and below it indented paragraphs; empty ones are left out."""
    console = _console()
    lines = [title]
    for heading, paragraphs in entries:
        lines.append(_wrapped(heading, console.width, "  ", "      "))
        lines += [_wrapped(paragraph, console.width, "      ", "      ") for paragraph in paragraphs if paragraph]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def table(headings: Sequence[str], rows: Rows, width: int, title: str = "") -> Table:
    """A table of at most `width` columns, if the words fit."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    result = Table(title=escape(title) or None, title_justify="left", box=box.SIMPLE_HEAD, show_header=any(headings))
    for heading, column_width in zip(headings, _column_widths(headings, rows, width), strict=True):
        result.add_column(heading, overflow="fold", width=column_width)
    for row in rows:
        result.add_row(*(escape(cell) for cell in row))
    return result


def fitting_columns(headings: Sequence[str], rows: Rows, width: int, title: str = "") -> Table:
    """A table of the first columns that fit with one line for each row, as a live display needs it."""
    widths = [_longest_line(cells) for cells in _columns(headings, rows)]
    count = max(1, sum(_table_width(widths[: n + 1]) <= width for n in range(len(widths))))
    return table(headings[:count], [row[:count] for row in rows], width, title)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=shutil.get_terminal_size((_FILE_WIDTH, 24)).columns)


def _columns(headings: Sequence[str], rows: Rows) -> list[list[str]]:
    return [[heading, *(row[number] for row in rows)] for number, heading in enumerate(headings)]


def _longest_line(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in (cell.splitlines() or [""]))


def _longest_word(cells: Sequence[str]) -> int:
    return max((len(word) for cell in cells for word in cell.split()), default=0)


def _least_widths(headings: Sequence[str], rows: Rows) -> list[int]:
    """The narrowest readable width of each column."""
    widths = []
    for number, cells in enumerate(_columns(headings, rows)):
        line = _longest_line(cells[1:]) if rows else 0
        readable = min(line, _LONGEST_NAME if number == 0 else _READABLE)
        widths.append(max(_longest_word(cells), readable))
    return widths


def _width(headings: Sequence[str], rows: Rows) -> int:
    return _table_width(_least_widths(headings, rows))


def _table_width(widths: Sequence[int]) -> int:
    return sum(widths) + _PADDING * len(widths) + 1


def _has_text(headings: Sequence[str], rows: Rows) -> bool:
    """Whether a column after the first one is too long for one short line."""
    return any(_longest_line(cells) > _READABLE for cells in _columns(headings, rows)[1:])


def _column_widths(headings: Sequence[str], rows: Rows, width: int) -> list[int]:
    """The longest lines, the longest columns shortened until the table fits."""
    least = _least_widths(headings, rows)
    widths = [_longest_line(cells) for cells in _columns(headings, rows)]
    while _table_width(widths) > width:
        spare = [number for number, column in enumerate(widths) if column > least[number]]
        if not spare:
            break
        widths[max(spare, key=lambda number: widths[number])] -= 1
    return widths


def _parts(headings: Sequence[str], rows: Rows, width: int, keys: int) -> Iterator[list[int]]:
    """Columns of each part of a table that is too wide, in order; each part begins with the first `keys` columns."""
    least = _least_widths(headings, rows)
    first = list(range(keys))
    part = list(first)
    for column in range(keys, len(headings)):
        if len(part) > keys and _table_width([least[n] for n in (*part, column)]) > width:
            yield part
            part = list(first)
        part.append(column)
    yield part


def _records(headings: Sequence[str], rows: Rows, width: int, keys: int) -> Iterator[str]:
    """Each row as lines: its name, then one indented line or paragraph for each cell that is not empty."""
    margin = max((len(heading) for heading in headings[keys:]), default=0) + 4
    for row in rows:
        yield ""
        yield _wrapped("  ".join(cell for cell in row[:keys] if cell), width, "", "    ")
        for heading, cell in zip(headings[keys:], row[keys:], strict=True):
            if cell:
                yield _wrapped(cell, width, f"  {heading}".ljust(margin), " " * margin)
    yield ""


def _wrapped(text: str, width: int, first: str, following: str) -> str:
    """Lines of at most `width` characters. Words such as paths are not broken, even if they are longer."""
    lines = text.splitlines() or [""]
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": following}
    return "\n".join(
        textwrap.fill(line, width, initial_indent=following if number else first, **options)
        for number, line in enumerate(lines)
    )
