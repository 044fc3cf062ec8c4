"""The spread over seeds: other trainings of the same model, next to that over folds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.comparison.statistics import estimate
from autoseg.schema.comparison import HEADLINE, SeedSpread
from autoseg.schema.scores import Scores


def seed_spreads(dataset_results: DatasetResults) -> tuple[SeedSpread, ...]:
    """For each model that has trainings of several seeds, over the folds that all of its seeds have."""
    return tuple(_spreads(dataset_results))


def _spreads(dataset_results: DatasetResults) -> Iterator[SeedSpread]:
    for model, others in dataset_results.seeds.items():
        own = dataset_results.models[model]
        runs = {own.first.record.seed: own, **others}
        folds = sorted(set.intersection(*(set(one.folds) for one in runs.values())))
        if not folds:
            continue
        values = {seed: _of_folds(one, folds) for seed, one in sorted(runs.items())}
        means = [float(one.mean()) for one in values.values()]
        of_folds = np.mean([one.std(ddof=1) for one in values.values()]) if len(folds) > 1 else np.nan
        yield SeedSpread(
            model=model, seeds=tuple(values), folds=tuple(folds), values=tuple(means), mean=float(np.mean(means)),
            std=float(np.std(means, ddof=1)), fold_std=float(of_folds),
            overall=_deviations([[one.scores[fold].overall for fold in folds] for one in runs.values()]),
            classes={
                name: _deviations([[class_numbers(one.scores[fold])[name] for fold in folds] for one in runs.values()])
                for name in own.scores[folds[0]].classes
            },
        )  # fmt: skip


def class_numbers(scores: Scores) -> dict[str, dict[str, float]]:
    """Class -> "pooled.dice", "per_image.hd95", ... -> its number in a fold."""
    return {
        name: {f"pooled.{metric}": value for metric, value in summary.pooled.items()}
        | {f"per_image.{metric}": spread.mean for metric, spread in summary.per_image.items()}
        for name, summary in scores.classes.items()
    }


def _deviations(seeds: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Sample deviation over seeds of the mean over folds, of each number; undefined where a seed has no defined one.

    seeds: of each seed the numbers of its folds."""
    deviations = {}
    for key in seeds[0][0]:
        means = [estimate({str(fold): numbers.get(key, math.nan) for fold, numbers in enumerate(of)}).mean for of in seeds]
        deviations[key] = float(np.std(means, ddof=1))
    return deviations


def _of_folds(model: ModelResults, folds: list[int]) -> np.ndarray:
    return np.array([model.scores[fold].overall[HEADLINE] for fold in folds], float)
