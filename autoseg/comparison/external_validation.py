"""What is left of each model's Dice on another dataset (see `evaluation.external`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from autoseg.comparison.results import DatasetResults, FoldResults
from autoseg.comparison.statistics import estimate
from autoseg.evaluation.external import FOLDER, INTERNAL, RECORD
from autoseg.schema.comparison import Drop, Estimate
from autoseg.schema.external import External
from autoseg.schema.scores import Scores
from autoseg.support.files import read_artefact

logger = logging.getLogger(__name__)

_Tests = dict[int, tuple[External, Scores, Scores]]


def external_drops(dataset_results: DatasetResults) -> tuple[Drop, ...]:
    """Every model on every other dataset it was tested on. Tests of an earlier run of a fold are left out with a warning."""
    found = []
    for name, model in dataset_results.trained.items():
        by_dataset: dict[str, _Tests] = {}
        for fold, run in model.folds.items():
            for tested in _tests(run):
                by_dataset.setdefault(tested[0].external, {})[fold] = tested
        found += [_drop(name, external, tests) for external, tests in sorted(by_dataset.items())]
    return tuple(found)


def _tests(run: FoldResults) -> list[tuple[External, Scores, Scores]]:
    found = []
    for path in sorted((run.folder / FOLDER).glob(f"*/{RECORD}")):
        record = read_artefact(path, External)
        if record.identity != run.record.identity:
            logger.warning(f"{path.parent} is of an earlier training and is left out")
            continue
        scores = [read_artefact(folder / "scores.json", Scores) for folder in (path.parent, path.parent / INTERNAL)]
        found.append((record, scores[0], scores[1]))
    return found


def _drop(model: str, external: str, tests: _Tests) -> Drop:
    def over_folds(key: str, side: Callable[[tuple[External, Scores, Scores]], Scores]) -> Estimate:
        return estimate({str(fold): side(tested).overall[key] for fold, tested in tests.items()})

    record, scores, _ = next(iter(tests.values()))
    there, here = (lambda tested: tested[1]), (lambda tested: tested[2])
    return Drop(
        model=model,
        external=external,
        labels=record.labels,
        cases=len(scores.cases),
        internal_pooled=over_folds("pooled.dice", here),
        external_pooled=over_folds("pooled.dice", there),
        internal_per_image=over_folds("per_image.dice", here),
        external_per_image=over_folds("per_image.dice", there),
    )
