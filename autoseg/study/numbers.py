"""Our numbers next to the published ones, each as the study defines it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from autoseg.comparison.tables import STUDY
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import DatasetComparison, ModelResult, StratumScore
from autoseg.schema.study import OMNIMODEL, PublishedTable, Study, StudyNumber, StudyRecord

_PERCENT = 100.0
# (dataset of the study, seed) -> its comparison.
Comparisons = Mapping[tuple[str, int], DatasetComparison]


def numbers(
    study: Study, comparisons: Comparisons, readers: Comparisons, variants: Mapping[str, str] | None = None
) -> tuple[StudyNumber, ...]:
    """Every published number with ours, then the study's other averages, for which it publishes none.

    readers: the comparisons with the zero-shot model's masks, for the strata. variants: model -> variant that is not the
    study's; its title says so.
    """
    tables = [one for table in study.published for one in _both_ways(table)]
    found = [number for table in tables for number in _of_table(study, table, comparisons, readers)]
    known = {(one.dataset, one.model, one.metric) for one in found if not one.of and not one.stratum}
    if any(table.metric in STUDY for table in study.published):
        for metric in STUDY:
            table = PublishedTable(metric=metric, unit="percent", rows={})  # type: ignore[arg-type]
            found += [
                _number(study, table, dataset.name, model.name, comparisons, readers)
                for dataset in study.datasets
                for model in study.models
                if dataset.name in (model.datasets or (dataset.name,)) and (dataset.name, model.name, metric) not in known
            ]
    other = variants or {}
    return tuple(
        replace(one, title=f"{one.title} (here {other[one.model]})") if one.model in other else one for one in found
    )


def family_means(record: StudyRecord, metric: str = "mDSC") -> list[tuple[str, str, float, float]]:
    """Family, dataset ("all" for the mean over datasets), our mean over its models, and the published one; over the models that
    have the number."""
    rows = []
    found = [one for one in record.numbers if one.metric == metric and not one.of and not one.stratum]
    of_cell = {(one.model, one.dataset): one for one in found}
    for family, members in record.families.items():
        means = []
        for dataset in record.datasets:
            cells = [of_cell[model, dataset] for model in members if (model, dataset) in of_cell]
            row = _mean([one.ours for one in cells]), _mean([one.published for one in cells])
            means.append(row)
            rows.append((family, dataset, *row))
        rows.append((family, "all", _mean([ours for ours, _ in means]), _mean([published for _, published in means])))
    return rows


def _both_ways(table: PublishedTable) -> list[PublishedTable]:
    """A table of HD95 twice: studies rarely say how they count empty masks."""
    return [table, replace(table, metric="HD95_diagonal")] if table.metric == "HD95" else [table]


def _of_table(study: Study, table: PublishedTable, comparisons: Comparisons, readers: Comparisons) -> Iterator[StudyNumber]:
    models = [model.name for model in study.models] + ([OMNIMODEL] if study.omnimodel else [])
    datasets = [dataset.name for dataset in study.datasets]
    for model, row in table.rows.items():
        for dataset in row:
            if model in models and dataset in datasets:
                yield _number(study, table, dataset, model, comparisons, readers)


def _number(
    study: Study, table: PublishedTable, dataset: str, model: str, comparisons: Comparisons, readers: Comparisons
) -> StudyNumber:
    values, deviation = _ours(study, table, dataset, model, readers if table.stratum else comparisons)
    published = (*table.rows.get(model, {}).get(dataset, ()), math.nan, math.nan)
    return StudyNumber(
        dataset=dataset, model=model, title=_title(study, model), metric=table.metric, unit=table.unit, of=table.of,
        stratum=table.stratum, ours=_mean(values), deviation=deviation, values=len(values), published=published[0],
        published_deviation=published[1],
    )  # fmt: skip


def _ours(
    study: Study, table: PublishedTable, dataset: str, model: str, comparisons: Comparisons
) -> tuple[list[float], float]:
    """The values of all folds and seeds, or of all seeds in a stratum; and the deviation of the former, or over the images."""
    factor = _PERCENT if table.unit == "percent" else 1.0
    values: list[float] = []
    spread: list[float] = []
    for seed in study.seeds:
        comparison = comparisons.get((dataset, seed))
        if comparison is None:
            continue
        if table.stratum:
            score = _stratum(study, comparison, dataset, table.stratum, model)
            if score is not None:
                key = table.metric.lower()
                values.append(factor * getattr(score, key))
                spread.append(factor * getattr(score, f"{key}_std"))
            continue
        result = next((one for one in comparison.models if one.model == model), None)
        values += [] if result is None else [factor * value for value in _folds(result, table)]
    values = [value for value in values if is_defined(value)]
    if table.stratum:
        return values, _mean(spread)
    return values, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _folds(result: ModelResult, table: PublishedTable) -> list[float]:
    """The value of each fold."""
    averaging = "pooled" if table.of and table.metric == "Dice" else "per_image"
    key = STUDY.get(table.metric) or f"{averaging}.{table.metric.lower()}"
    estimates = result.classes.get(table.of, {}) if table.of else result.overall
    return list(estimates[key].folds.values()) if key in estimates else []


def _stratum(
    study: Study, comparison: DatasetComparison, dataset: str, stratum: str, model: str
) -> StratumScore | None:
    specialist = next(one.specialist for one in study.datasets if one.name == dataset)
    of_specialist = (one for one in comparison.strata if one.by == specialist)
    scores = next((one.scores for strata in of_specialist for one in strata.strata if one.name == stratum), {})
    return scores.get(model)


def _title(study: Study, model: str) -> str:
    if model == OMNIMODEL and study.omnimodel is not None:
        return study.omnimodel.title
    return next((one.title or one.name for one in study.models if one.name == model), model)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if is_defined(value)]
    return sum(defined) / len(defined) if defined else math.nan
