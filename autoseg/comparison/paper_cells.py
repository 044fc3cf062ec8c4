"""Cells of a paper's tables: numbers rounded by their uncertainty, as texts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoseg.comparison.cells import display_factor
from autoseg.comparison.rounding import decimals, rounded
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import Estimate, Interval


@dataclass(frozen=True)
class Spread:
    """mean ± deviation, rounded texts; either may be ""."""

    mean: str
    deviation: str = ""


@dataclass(frozen=True)
class Limits:
    """Ends of an interval, rounded texts, both "" if undefined."""

    low: str
    high: str


Cell = str | Spread | Limits


@dataclass(frozen=True)
class Column:
    """kind: what its cells are. A "number" is a text of one number; "name" is any text. only_csv: its cells are all the same,
    and the caption says it; a CSV holds several tables."""

    heading: str
    kind: str = "number"
    only_csv: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """key: of KEYS. dataset: name. title: short; caption: all of it. rows: one cell for each column."""

    key: str
    dataset: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def factor_of(key: str) -> float:
    return display_factor(key.partition(".")[2])


def half_width(one: Interval | None) -> float:
    """Half the width of an interval, in its own unit."""
    return (one.high - one.low) / 2 if one is not None else math.nan


def spread(estimate: Estimate | None, factor: float = 100.0, half: float = math.nan) -> Spread:
    """half: of the interval, which rounds a mean without a deviation."""
    if estimate is None or not is_defined(estimate.mean):
        return Spread("")
    known = is_defined(estimate.std) and estimate.std > 0
    places = decimals(factor * estimate.mean, factor * (estimate.std if known else half))
    return Spread(rounded(factor * estimate.mean, places), rounded(factor * estimate.std, places))


def centre(one: Interval, factor: float, *, signed: bool = False) -> str:
    return rounded(factor * one.mean, decimals(factor * one.mean, factor * half_width(one)), signed=signed)


def limits(one: Interval | None, factor: float = 100.0, *, signed: bool = False) -> Limits:
    if one is None or not is_defined(one.low):
        return Limits("", "")
    places = decimals(factor * one.mean, factor * half_width(one))
    return Limits(rounded(factor * one.low, places, signed=signed), rounded(factor * one.high, places, signed=signed))
