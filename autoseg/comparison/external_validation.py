"""The change of each model's Dice on another dataset (see `evaluation.external`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from autoseg.comparison.results import DatasetResults, FoldResults
from autoseg.comparison.statistics import estimate
from autoseg.evaluation.external import FOLDER, INTERNAL, RECORD
from autoseg.schema.comparison import Estimate, ExternalValidation
from autoseg.schema.external import External
from autoseg.schema.scores import Scores
from autoseg.support.files import read_artefact

logger = logging.getLogger(__name__)

_Results = dict[int, tuple[External, Scores, Scores]]


def external_validations(dataset_results: DatasetResults) -> tuple[ExternalValidation, ...]:
    """One for each model and external dataset. Results of an earlier run of a fold are left out with a warning."""
    validations = []
    for name, model in dataset_results.trained.items():
        by_dataset: dict[str, _Results] = {}
        for fold, run in model.folds.items():
            for result in _read_results(run):
                by_dataset.setdefault(result[0].external, {})[fold] = result
        validations += [_validation(name, external, results) for external, results in sorted(by_dataset.items())]
    return tuple(validations)


def _read_results(run: FoldResults) -> list[tuple[External, Scores, Scores]]:
    results = []
    for path in sorted((run.folder / FOLDER).glob(f"*/{RECORD}")):
        record = read_artefact(path, External)
        if record.identity != run.record.identity:
            logger.warning(f"{path.parent} belongs to an earlier training and is left out")
            continue
        scores = [read_artefact(folder / "scores.json", Scores) for folder in (path.parent, path.parent / INTERNAL)]
        results.append((record, scores[0], scores[1]))
    return results


def _validation(model: str, external: str, results: _Results) -> ExternalValidation:
    def over_folds(key: str, side: Callable[[tuple[External, Scores, Scores]], Scores]) -> Estimate:
        return estimate({str(fold): side(result).overall[key] for fold, result in results.items()})

    record, scores, _ = next(iter(results.values()))
    external_scores, internal_scores = (lambda result: result[1]), (lambda result: result[2])
    return ExternalValidation(
        model=model,
        external=external,
        labels=record.labels,
        cases=len(scores.cases),
        internal_micro=over_folds("micro.dice", internal_scores),
        external_micro=over_folds("micro.dice", external_scores),
        internal_class_mean=over_folds("class_mean.dice", internal_scores),
        external_class_mean=over_folds("class_mean.dice", external_scores),
        internal_per_image=over_folds("per_image.dice", internal_scores),
        external_per_image=over_folds("per_image.dice", external_scores),
    )
