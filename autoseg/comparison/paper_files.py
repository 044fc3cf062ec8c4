"""Tables of a paper as files: comparison.md, comparison.tex (booktabs), and a CSV for each table.

Names of models, classes and datasets are data: each format escapes them, so that they are shown as they are.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from autoseg.comparison.conditions import TITLE
from autoseg.comparison.headline import summary
from autoseg.comparison.paper_cells import Cell, Column, Limits, PaperTable, Spread
from autoseg.comparison.paper_tables import KEYS, paper_tables
from autoseg.comparison.rounding import MINUS, PLUS_MINUS
from autoseg.schema.comparison import Comparison, DatasetComparison
from autoseg.support.files import write_text

_ABSENT = "–"
# A float that is longer than a page is cut off at its bottom.
_ROWS_OF_A_FLOAT = 40
_LONG_HEADING = 13
# From À to ž, found by compiling each: the encoding OT1 has no eth, thorn, ogonek, stroke, or dot in the middle of a letter.
_NOT_IN_OT1 = "ÐÞðþ×÷ĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲų"
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "°": r"$^\circ$",
    # Active in some languages of babel.
    '"': r"\char34{}",
    # After a line's end they would be arguments of it.
    "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "o",
    "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)  # fmt: skip
_GREEK = dict(zip("αβγδεζηθικλμνξοπρςστυφχψω", _GREEK_NAMES, strict=True))
_GREEK |= {letter.upper(): _GREEK[letter].capitalize() for letter in "γδθλξπσφψω"}
# Letters with a stroke, a hook or a tail are decomposed by their names.
_LATIN = re.compile(r"LATIN (CAPITAL|SMALL) LETTER ([A-Z])(?: WITH .*)?")
# pdfLaTeX stops at a letter that its fonts lack; the other engines know `\Umathcode` and take the letter itself.
_LETTER = r"\ifdefined\Umathcode\def\autosegletter#1#2{#1}\else\def\autosegletter#1#2{#2}\fi"
# Two hyphens would be a dash, two apostrophes a quotation mark, "?`" a Spanish one. LuaLaTeX needs more than {} between them.
_LIGATURE = re.compile(r"([-',])(?=\1)|[`?!](?=`)")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$&#])")


def write_paper_tables(folder: Path, comparison: Comparison) -> None:
    """comparison.md, comparison.tex, comparison_<table>.csv. An older CSV of a table that this comparison lacks is removed."""
    found = list(paper_tables(comparison))
    write_text(folder / "comparison.md", to_markdown(comparison))
    write_text(folder / "comparison.tex", to_latex(found))
    for key in KEYS:
        path, of_key = folder / f"comparison_{key}.csv", [table for table in found if table.key == key]
        if of_key:
            write_text(path, to_csv(of_key))
        else:
            path.unlink(missing_ok=True)


def to_csv(found: Sequence[PaperTable]) -> str:
    """Tables of one kind as one; the rounded numbers alone in their cells: deviations and limits have their own columns."""
    rows = []
    for table in found:
        for row in table.rows:
            parts = (_parts(column, cell) for column, cell in zip(table.columns, row, strict=True))
            rows.append({"dataset": table.dataset} | dict(pair for several in parts for pair in several))
    headings = dict.fromkeys(["dataset", *(name for row in rows for name in row)])
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(headings), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _parts(column: Column, cell: Cell) -> list[tuple[str, str]]:
    name = column.heading
    if isinstance(cell, Spread):
        return [(name, cell.mean), (f"{name} deviation", cell.deviation)]
    if isinstance(cell, Limits):
        return [(f"{name} low", cell.low), (f"{name} high", cell.high)]
    return [(name, cell)]


def to_markdown(comparison: Comparison) -> str:
    """The summary of each dataset, what has to be read with it, the tables with their captions, and notes."""
    parts = [f"# Comparison of {_markdown(', '.join(dataset.dataset for dataset in comparison.datasets))}"]
    found = list(paper_tables(comparison))
    for dataset in comparison.datasets:
        parts += [f"## {_markdown(dataset.dataset)}", f"**{_markdown(summary(dataset))}**", f"### {TITLE}"]
        lines = [f"- {topic}: {_markdown(text)}" for topic, text in dataset.conditions.lines.items()]
        parts.append("\n".join([*lines, *(f"- note: {_markdown(note)}" for note in other_notes(dataset))]))
        for table in found:
            if table.dataset == dataset.dataset:
                parts += [f"### {_markdown(table.title)}", _markdown_table(table), _markdown(table.caption)]
    parts += ["## How it was measured", _markdown(comparison.rule)]
    return "\n\n".join(part for part in parts if part) + "\n"


def other_notes(dataset: DatasetComparison) -> Iterator[str]:
    """Notes that do not stand in the conditions."""
    stated = " ".join(dataset.conditions.lines.values())
    return (note for note in dataset.notes if note not in stated)


def _markdown_table(table: PaperTable) -> str:
    columns = _printed(table)
    lines = [_row(column.heading for column in columns)]
    lines.append(_row("---" if column.kind == "name" else "---:" for column in columns))
    for row in table.rows:
        lines.append(_row(_cells(table, row, _markdown)))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def to_latex(found: Sequence[PaperTable]) -> str:
    r"""Floats for \input; of packages they need booktabs and graphicx. Long tables are several floats, wide ones are scaled.

    Letters that the fonts of pdfLaTeX lack are written by `\autosegletter`: pdfLaTeX prints a near letter or the code.
    """
    head = [r"% Tables of autoseg_compare. In the preamble: \usepackage{booktabs,graphicx}. In the text: \input{comparison}"]
    body = "\n".join(line for table in found for line in _floats(table))
    unusual = sorted({character for character in body if not _is_in_latex(character)})
    if unusual:
        codes = ", ".join(f"U+{ord(character):04X}" for character in unusual)
        head.append(f"% pdfLaTeX cannot print {codes}; LuaLaTeX and XeLaTeX can, with a font that has them.")
        head.append(_LETTER)
    return "\n".join([*head, body]) + "\n"


def _floats(table: PaperTable) -> Iterator[str]:
    parts = [table.rows[start : start + _ROWS_OF_A_FLOAT] for start in range(0, len(table.rows), _ROWS_OF_A_FLOAT)]
    label = re.sub(r"[^a-z0-9]+", "-", f"{table.dataset} {table.title.partition(' on ')[0]}".lower()).strip("-")
    columns = _printed(table)
    for number, rows in enumerate(parts, start=1):
        part, of = (f"-{number}", f"Part {number} of {len(parts)}. ") if len(parts) > 1 else ("", "")
        yield r"\begin{table}[htbp]"
        yield r"\centering"
        # The standard classes have no space below a caption, as they expect it below the table.
        yield r"\setlength{\belowcaptionskip}{4pt}"
        yield rf"\caption[{{{_latex(table.title)}}}]{{{_latex(of + table.caption)}}}"
        yield rf"\label{{tab:{label}{part}}}"
        yield r"\footnotesize"
        yield r"\setlength{\tabcolsep}{4pt}"
        yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        yield rf"\begin{{tabular}}{{@{{}}{''.join('l' if one.kind == 'name' else 'r' for one in columns)}@{{}}}}"
        yield r"\toprule"
        yield " & ".join(map(_heading, columns)) + r" \\"
        yield r"\midrule"
        for row in rows:
            yield " & ".join(_cells(table, row, _latex)) + r" \\"
        yield r"\bottomrule"
        yield r"\end{tabular}}"
        yield r"\end{table}"


def _heading(column: Column) -> str:
    """In two lines where it is long, so that the table is as wide as its numbers."""
    words = column.heading.split()
    if len(column.heading) <= _LONG_HEADING or len(words) == 1:
        return _latex(column.heading)
    first = min(range(1, len(words)), key=lambda place: max(len(" ".join(words[:place])), len(" ".join(words[place:]))))
    side = "l" if column.kind == "name" else "r"
    return rf"\shortstack[{side}]{{{_latex(' '.join(words[:first]))}\\ {_latex(' '.join(words[first:]))}}}"


def _latex(text: str) -> str:
    # Composed: a combining accent alone is in no font of pdfLaTeX.
    composed = unicodedata.normalize("NFC", _one_line(text))
    escaped = "".join(_TEX.get(one) or (one if _is_in_latex(one) else _letter(one)) for one in composed)
    return _LIGATURE.sub(r"\g<0>\\mbox{}", escaped)


def _letter(character: str) -> str:
    return rf"\autosegletter{{{character}}}{{{_near(character)}}}"


def _near(character: str) -> str:
    """What pdfLaTeX prints for a letter it lacks: the Greek letter of its mathematics, the Latin letter or digit without marks,
    else the code."""
    name = _GREEK.get(unicodedata.normalize("NFKC", character))
    if name is not None:
        return "o" if name == "o" else rf"\ensuremath{{\{name}}}"
    plain = "".join(one for one in unicodedata.normalize("NFKD", character) if one.isascii() and one.isalnum())
    latin = _LATIN.fullmatch(unicodedata.name(character, ""))
    if not plain and latin is not None:
        plain = latin[2] if latin[1] == "CAPITAL" else latin[2].lower()
    return plain or rf"\textless{{}}U+{ord(character):04X}\textgreater{{}}"


def _is_in_latex(character: str) -> bool:
    """Whether pdfLaTeX's standard fonts have it: ASCII and most accented letters of European languages."""
    return character.isascii() or character in "–—‘’“”…" or ("À" <= character <= "ž" and character not in _NOT_IN_OT1)


def _cells(table: PaperTable, row: Sequence[Cell], escape: Callable[[str], str]) -> Iterator[str]:
    for column, cell in zip(table.columns, row, strict=True):
        if column.only_csv:
            continue
        text = _shown(cell)
        # A hyphen before a number is a minus sign; in a name it stays.
        yield escape((text if column.kind == "name" else re.sub(r"(?<!\S)-(?=\d)", MINUS, text)) or _ABSENT)


def _printed(table: PaperTable) -> list[Column]:
    """The columns of a page."""
    return [column for column in table.columns if not column.only_csv]


def _shown(cell: Cell) -> str:
    if isinstance(cell, Spread):
        return f"{cell.mean} {PLUS_MINUS} {cell.deviation}" if cell.deviation else cell.mean
    if isinstance(cell, Limits):
        return f"{cell.low} to {cell.high}" if cell.low else ""
    return cell


def _one_line(text: str) -> str:
    """Without line breaks, control characters and halves of surrogate pairs, each a space."""
    return "".join(" " if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") else one for one in text)
