"""Agreement between two annotators as the ceiling, and each model's agreement with either of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.comparison import statistics
from autoseg.comparison.paired_scores import case_values, group_means
from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.evaluation.pairing import masks_by_case
from autoseg.io.raw_dataset import RawDataset
from autoseg.schema.comparison import AnnotatorAgreement
from autoseg.schema.scores import CaseScore
from autoseg.support.errors import AutosegError

_FEWEST_UNITS = 2


def annotator_agreements(dataset_results: DatasetResults, folder: Path, metric: str) -> tuple[AnnotatorAgreement, ...]:
    """Each model on the held-out cases that a second annotator drew too.

    folder: their masks, named as the cases; some cases are enough. metric: of cases. Raises AutosegError if the folder has too
    few masks of held-out cases, SeveralProblems if a mask cannot be read or has other values than the dataset.
    """
    second = masks_by_case(folder)
    references = RawDataset.open(dataset_results.dataset).references
    held_out = {case for model in dataset_results.models.values() for case in model.cases}
    drawn = sorted(held_out & second.keys())
    if not drawn:
        raise AutosegError(
            f"{folder} has no mask of a held-out case of {dataset_results.dataset.name}",
            f"name the masks as the cases, for example {min(held_out)}.png",
        )
    spec = dataset_results.spec
    people = evaluate_folders(folder, references, spec, cases=drawn, write=False, probabilities=False)
    people_of = {one.case: one for one in people.cases}
    agreements = []
    for name, model in dataset_results.models.items():
        with_second = {one.case: one for one in _scores_with(dataset_results, model, second)}
        rows = {}
        for case in with_second:
            values = case_values([model.cases[case], with_second[case], people_of[case]], metric)
            if values is not None:
                rows[case] = values
        units = group_means(rows, spec.groups)
        if len(units) >= _FEWEST_UNITS:
            agreements.append(_agreement(name, len(rows), np.array(list(units.values()), float).T))
    if not agreements:
        raise AutosegError(
            f"{folder} has masks of too few held-out cases of {dataset_results.dataset.name} ({', '.join(drawn)})",
            f"agreement needs {_FEWEST_UNITS} cases, or groups where the dataset has them, with a defined {metric}",
        )
    return tuple(agreements)


def _scores_with(dataset_results: DatasetResults, model: ModelResults, second: dict[str, Path]) -> tuple[CaseScore, ...]:
    masks = {case: path for case in model.cases if case in second and (path := model.mask_of(case)) is not None}
    if not masks:
        return ()
    # All at once: what gray levels mean is read from all masks together.
    return evaluate_folders(
        masks, second, dataset_results.spec, cases=list(masks), write=False, probabilities=False
    ).cases


def _agreement(name: str, cases: int, matrix: statistics.Matrix) -> AnnotatorAgreement:
    """matrix: (with the first, with the second, the second with the first) x units."""
    both = matrix[:2].mean(axis=0)
    rows = np.stack([*matrix, both, both - matrix[2]])
    resampled = statistics.bootstrap_means(rows)
    first, other, people, mean, difference = (
        statistics.interval(values, resampled[:, number]) for number, values in enumerate(rows)
    )
    return AnnotatorAgreement(
        model=name, cases=cases, units=rows.shape[1], first=first, second=other, both=mean, people=people, difference=difference
    )
