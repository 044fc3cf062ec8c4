"""Tables for display, and numbers as text for their cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import HEADLINE, DatasetComparison, Estimate, Interval, ModelResult
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS

_NAMES = {
    "dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall", "hd95": "HD95", "asd": "ASD", "nsd": "NSD",
    "hd95_diagonal": "HD95, diagonal", "hd95_pooled": "HD95, pooled", "cldice": "clDice",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table:
    """note: how to read the table. rows: cells as text; the first `keys` columns name a row."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1


def tested_metric(dataset: DatasetComparison) -> str:
    """The tested metric as it is usually written."""
    return _NAMES.get(dataset.metric, dataset.metric)


def ordered_by_dice(dataset: DatasetComparison) -> list[ModelResult]:
    """Models, the best micro Dice first."""
    return sorted(dataset.models, key=lambda result: -_or_last(result.overall[HEADLINE].mean))


def _or_last(value: float) -> float:
    return value if is_defined(value) else -1.0


def decimal(value: float) -> str:
    return f"{value:.4f}" if is_defined(value) else "–"


def percent(value: float) -> str:
    return f"{100 * value:.1f}" if is_defined(value) else "–"


def points(value: float, metric: str) -> str:
    """A signed difference: in percentage points, or for distances in their unit."""
    if not is_defined(value):
        return "–"
    return f"{value:+.2f}" if display_factor(metric) == 1.0 else f"{100 * value:+.1f}"


def display_factor(metric: str) -> float:
    """Factor for display: 100 (percent) for metrics from 0 to 1, else 1. Also 1 if the metric is not installed."""
    try:
        return 100.0 if METRICS.get(metric).is_fraction else 1.0
    except AutosegError:
        return 1.0


def cell(value: float, metric: str) -> str:
    """A value as tables show the metric: in percent if it is a fraction."""
    return f"{display_factor(metric) * value:.1f}" if is_defined(value) else "–"


def spread(estimate: Estimate | None, factor: float = 100.0) -> str:
    """mean ± deviation; without deviation if there is one fold only."""
    if estimate is None or not is_defined(estimate.mean):
        return "–"
    text = f"{factor * estimate.mean:.1f}"
    return f"{text} ± {factor * estimate.std:.1f}" if is_defined(estimate.std) else text


SEEDS_NOTE = (
    "seeds: the deviation over seeds of the mean over folds, for models with several seeds; all else is of the plan's own seed"
)


def seed_deviations(dataset: DatasetComparison, model: str, name: str = "") -> Mapping[str, float]:
    """Key -> deviation over seeds, of a model's overall numbers or of a class; empty for a model with one seed."""
    one = next((spread for spread in dataset.seeds if spread.model == model), None)
    if one is None:
        return {}
    return one.classes.get(name, {}) if name else one.overall


def with_seeds(dataset: DatasetComparison, headings: Iterable[str]) -> tuple[str, ...]:
    """In a comparison with several seeds a column for the deviation over them next to each heading."""
    return tuple(one for name in headings for one in ([name, f"{name}, seeds"] if dataset.seeds else [name]))


def spreads(
    dataset: DatasetComparison, estimates: Mapping[str, Estimate], keys: Iterable[str], deviations: Mapping[str, float]
) -> list[str]:
    """The cells below `with_seeds`: mean ± deviation over folds, and the deviation over seeds."""
    cells = []
    for key in keys:
        factor, over_seeds = display_factor(key.partition(".")[2]), deviations.get(key, math.nan)
        cells.append(spread(estimates.get(key), factor))
        if dataset.seeds:
            cells.append(f"{factor * over_seeds:.1f}" if is_defined(over_seeds) else "–")
    return cells


def interval(one: Interval | None, metric: str) -> str:
    factor = display_factor(metric)
    return f"{factor * one.low:.1f} to {factor * one.high:.1f}" if one is not None and is_defined(one.low) else "–"


def folds(result: ModelResult) -> str:
    return ", ".join(map(str, result.folds)) or "–"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
