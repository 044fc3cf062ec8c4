"""Columns of a CSV about the cases (site, scanner, sex, age, diagnosis), for subgroups."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autoseg.support.errors import AutosegError, SeveralProblems

CASE, NOT_GIVEN = "case", "not given"
# How spreadsheets, R and pandas write a missing value.
_MISSING = ("", "NA", "N/A", "#N/A", "n/a", "nan", "NaN")
_SHOWN = 5
_DELIMITERS = ",;\t"
_REMEDY = "the first line names the columns, one of them 'case'; each other line is of one case"
# A column of numbers with at most so many different ones is one of codes.
_CODES = 6


@dataclass(frozen=True)
class Metadata:
    """file: where it is from. columns: name -> case, as written in the file -> value, never empty."""

    file: Path
    columns: dict[str, dict[str, str]]

    def values(self, column: str, cases: Iterable[str], file_ending: str) -> dict[str, str]:
        """Case -> its value, `NOT_GIVEN` where the file has none. The file may name cases with or without `file_ending`.

        Raises AutosegError if the file has no value for any of the cases, or two different ones for a case.
        """
        given = self.columns[column]
        cases = tuple(cases)
        both = [(case, given.get(case), given.get(case + file_ending)) for case in cases]
        twice = [case for case, one, other in both if one and other and one != other]
        if twice:
            shown = ", ".join(twice[:_SHOWN]) + (f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else "")
            raise AutosegError(f"{self.file} has two different {column} for {shown}", "give each case one line")
        found = {case: given.get(case) or given.get(case + file_ending) or NOT_GIVEN for case in cases}
        if all(value == NOT_GIVEN for value in found.values()):
            example = next(iter(found), "")
            remedy = f"its column 'case' must have their names, such as {example}"
            raise AutosegError(f"{self.file} has no {column} for any of the cases", remedy)
        return found


def read_metadata(path: Path) -> Metadata:
    """Read a CSV with a column "case", separated by commas, semicolons or tabs, in UTF-8.

    Raises AutosegError for a file that is no such table, SeveralProblems for wrong lines, all of them at once. Messages have no
    values of the file but names of columns and cases.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AutosegError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error
    except FileNotFoundError as error:
        raise AutosegError(f"{path} does not exist", "give a CSV with a column 'case'") from error
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise AutosegError(f"{path} is not a CSV: {error} in line {reader.line_num}", _REMEDY) from error
    if not lines:
        raise AutosegError(f"{path} is empty", _REMEDY)
    headings = lines[0][1]
    if headings.count(CASE) != 1 or len(set(headings)) < len(headings) or "" in headings:
        shown = ", ".join(heading or "(no name)" for heading in headings[:20])
        raise AutosegError(f"{path} needs columns of different names, one of them 'case'; it has {shown}", _REMEDY)
    return Metadata(path, _columns(path, headings, lines[1:]))


def _columns(path: Path, headings: list[str], lines: list[tuple[int, list[str]]]) -> dict[str, dict[str, str]]:
    place, faults = headings.index(CASE), []
    columns: dict[str, dict[str, str]] = {heading: {} for heading in headings if heading != CASE}
    seen: set[str] = set()
    for number, cells in lines:
        if len(cells) != len(headings):
            faults.append(f"line {number} has {len(cells)} cells instead of {len(headings)}")
            continue
        case = cells[place]
        if not case or case in seen:
            faults.append(f"line {number}: {f'{case} is there twice' if case else 'no name of a case'}")
        seen.add(case)
        for heading, cell in zip(headings, cells, strict=True):
            if heading != CASE and cell not in _MISSING:
                columns[heading][case] = cell
    if faults:
        raise SeveralProblems(f"{path} cannot be used:", faults, _REMEDY)
    return columns


def numbers(values: Iterable[str]) -> list[float] | None:
    """The values as numbers (not-a-number where not given) if all are numbers, and more different ones than codes have."""
    found = []
    for value in values:
        try:
            found.append(math.nan if value == NOT_GIVEN else float(value))
        except ValueError:
            return None
        if math.isinf(found[-1]):
            return None
    return found if len({number for number in found if not math.isnan(number)}) > _CODES else None
