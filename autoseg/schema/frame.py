"""Results in a notebook: one line as text, a small table as HTML, and all rows as a pandas DataFrame."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")
Row = dict[str, object]
_SHOWN_ROWS = 20


class Tabular(ABC):
    """Base class of the results of `autoseg.api`. A dataclass that derives from it needs `repr=False`."""

    __slots__ = ()

    @abstractmethod
    def summary(self) -> str:
        """What it is, how many, and the main number, in a few words."""

    @abstractmethod
    def to_rows(self) -> list[Row]:
        """Column -> value, for each row of the frame."""

    def overview(self) -> list[Row]:
        """The rows to show in a notebook."""
        return self.to_rows()

    def to_frame(self) -> DataFrame:
        """All rows as a pandas DataFrame. Raises ImportError if pandas is not installed."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_frame() needs pandas: pip install pandas") from error
        return DataFrame(self.to_rows())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def _repr_html_(self) -> str:
        rows = self.overview()
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines = ["".join(f"<td>{escape(_text(row.get(column)))}</td>" for column in columns) for row in rows[:_SHOWN_ROWS]]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        more = f"<p>and {len(rows) - _SHOWN_ROWS} more rows: to_frame() has all</p>" if len(rows) > _SHOWN_ROWS else ""
        return f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


class Results(Tabular, list[T]):
    """A list of results; its table has the rows of all."""

    def summary(self) -> str:
        shown = [one.summary() if isinstance(one, Tabular) else type(one).__name__ for one in self]
        several = f", ... {shown[-1]}" if len(shown) > 2 else f", {shown[-1]}" if len(shown) == 2 else ""
        return f"{len(shown)}: {shown[0]}{several}" if shown else "none"

    def to_rows(self) -> list[Row]:
        return [row for one in self for row in (one.to_rows() if isinstance(one, Tabular) else [fields(one)])]

    def overview(self) -> list[Row]:
        return [row for one in self for row in (one.overview() if isinstance(one, Tabular) else [fields(one)])]


def fields(artefact: object, *without: str) -> Row:
    """Name -> value of a dataclass's fields, some left out."""
    names = [field.name for field in dataclasses.fields(artefact)]  # type: ignore[arg-type]
    return {name: getattr(artefact, name) for name in names if name not in without}


def count(number: int, noun: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)
