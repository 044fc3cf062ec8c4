"""The spread over seeds: other trainings of the same model, beside the folds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.schema.comparison import HEADLINE, SeedSpread


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
        )  # fmt: skip


def _of_folds(model: ModelResults, folds: list[int]) -> np.ndarray:
    return np.array([model.scores[fold].overall[HEADLINE] for fold in folds], float)
