"""Comparison of finished trainings."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import autoseg
from autoseg.comparison import statistics
from autoseg.comparison.conditions import conditions
from autoseg.comparison.cost import cost
from autoseg.comparison.external_validation import external_validations
from autoseg.comparison.micro_average import micro_intervals
from autoseg.comparison.paired_scores import PAIRING, PairedScores, pair_scores
from autoseg.comparison.protocol_checks import check_protocol, choices_note, noted_differences
from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.comparison.second_annotator import annotator_agreements
from autoseg.comparison.seeds import class_numbers, seed_spreads
from autoseg.comparison.selection import read_selection
from autoseg.comparison.selective_prediction import risk_coverage
from autoseg.comparison.strata import stratify
from autoseg.io.metadata import Metadata
from autoseg.metrics.rules import DEFINITIONS, RULE, is_defined
from autoseg.models import registry
from autoseg.schema.comparison import (
    HEADLINE,
    Comparison,
    Cost,
    DatasetComparison,
    Estimate,
    Family,
    Interval,
    ModelResult,
    PairTest,
    Stratification,
)
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.scores import BUILT_IN_METRICS, Calibration, Scores
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS
from autoseg.support.files import read_artefact

# Families that are tested against each other: in a test, the one that comes first minus the other.
_FAMILIES = ("foundation", "generalist", "specialist")


def compare(
    all_results: Sequence[DatasetResults],
    *,
    metric: str = "dice",
    allow_unequal: bool = False,
    strata: Sequence[str] = (),
    fraction: float = 0.05,
    metadata: Metadata | None = None,
    second_annotator: Path | None = None,
) -> Comparison:
    """Compare all models of one or several datasets.

    metric: per-case metric for tests and ranking. strata: what to stratify by, see `strata.stratify`. fraction: of the cases
    that are easy, and hard. metadata: more columns to stratify by. second_annotator: folder of other masks of
    the cases. Raises AutosegError if a model was not scored
    with `metric`, SeveralProblems if runs are not equal and `allow_unequal` is False.
    """
    METRICS.get(metric)
    for dataset_results in all_results:
        _check_scored(dataset_results, metric)
    stratified = partial(_strata, strata=strata, fraction=fraction, metadata=metadata)
    datasets = tuple(
        _compare_dataset(dataset_results, metric, allow_unequal, stratified) for dataset_results in all_results
    )
    if second_annotator is not None:
        datasets = tuple(
            replace(dataset, annotators=annotator_agreements(dataset_results, second_annotator, metric))
            for dataset, dataset_results in zip(datasets, all_results, strict=True)
        )
    return Comparison(
        datasets=datasets,
        across=_across(datasets),
        rule=f"{RULE} {PAIRING}",
        definitions=_definitions(all_results),
        versions={"autoseg": autoseg.__version__, "numpy": np.__version__, "python": platform.python_version()},
    )


def _check_scored(dataset_results: DatasetResults, metric: str) -> None:
    """Raises AutosegError if a model was scored without the metric: by an older release, without thin classes, or without the
    package of the metric."""
    unscored = [
        name
        for name, model in dataset_results.models.items()
        if not all(f"per_image.{metric}" in scores.overall for scores in model.scores.values())
    ]
    if unscored:
        again = "run autoseg_evaluate on the masks in each fold's validation/"
        remedy = again if metric in BUILT_IN_METRICS else f"install {METRICS.source(metric)}, then {again}"
        if metric == "cldice":
            remedy = "choose another metric: clDice is of thin classes only"
        raise AutosegError(
            f"{', '.join(unscored)} on {dataset_results.dataset.name} was scored without the metric {metric!r}", remedy
        )


def _definitions(all_results: Sequence[DatasetResults]) -> dict[str, str]:
    """Definitions of all metrics in the scores, including those of other packages."""
    scored = [
        scores
        for dataset_results in all_results
        for model in dataset_results.models.values()
        for scores in model.scores.values()
    ]
    added = {name: text for scores in scored for name, text in scores.definitions.items() if name not in DEFINITIONS}
    return DEFINITIONS | added


def _compare_dataset(
    dataset_results: DatasetResults,
    metric: str,
    allow_unequal: bool,
    stratified: Callable[[DatasetResults], tuple[Stratification, ...]],
) -> DatasetComparison:
    notes = check_protocol(dataset_results, allow_unequal)
    values, higher_is_better = pair_scores(dataset_results, metric), METRICS.get(metric).higher_is_better
    resampled = statistics.bootstrap_means(values.matrix) if values.units else np.zeros((0, len(values.names)))
    groups = dataset_results.spec.groups
    results = tuple(_model_result(model, values, resampled, groups) for model in dataset_results.models.values())
    several = len(values.names) > 1 and len(values.units) > 1
    first = next(iter(dataset_results.models.values()))
    scores = next(iter(first.scores.values()))
    families = _families(results)
    selection, selection_notes = read_selection(dataset_results.dataset)
    tests = statistics.paired_tests(values.names, values.matrix, resampled) if several else ()
    return DatasetComparison(
        dataset=dataset_results.dataset.name,
        protocol=next(iter(dataset_results.trained.values())).first.record.protocol,
        metric=metric,
        unit=scores.unit,
        tolerance=scores.tolerance,
        classes=tuple(scores.classes),
        cases=len({case for model in dataset_results.models.values() for case in model.cases}),
        units="group" if groups else "case",
        models=results,
        tests=tests,
        ranking=statistics.rank(values.names, values.matrix, resampled, higher_is_better) if several else None,
        families=families,
        family_tests=_family_tests(families, values, resampled) if several else (),
        strata=stratified(dataset_results),
        external_validation=external_validations(dataset_results),
        risk_coverage=risk_coverage(dataset_results),
        notes=(*choices_note(dataset_results), *notes, *noted_differences(dataset_results), *selection_notes),
        selection=selection,
        seeds=seed_spreads(dataset_results),
        conditions=conditions(dataset_results, len(values.units), tests, selection, unequal=bool(notes)),
    )


def _model_result(
    model: ModelResults, values: PairedScores, resampled: statistics.Matrix, groups: Mapping[str, str]
) -> ModelResult:
    index = values.names.index(model.model)
    record = model.first.record if model.folds else None
    # A folder of autoseg_select has another name than its network.
    network = record.model if record else model.model
    spec = registry.find_spec(network) if model.folds else None
    calibrations = _calibrations([scores.calibration for scores in model.scores.values() if scores.calibration is not None])
    mean = Interval(float("nan"), float("nan"), float("nan"))
    return ModelResult(
        model=model.model,
        title=spec.title if spec and network == model.model else model.model,
        family=spec.family if spec else model.family or "other",
        variant=record.variant if record else "",
        pretrained=record.pretrained if record else "",
        folds=tuple(model.folds) or model.external_folds,
        cases=len(model.cases),
        overall=_estimates({fold: scores.overall for fold, scores in model.scores.items()}),
        classes=_class_estimates(model.scores),
        case_mean=statistics.interval(values.matrix[index], resampled[:, index]) if values.units else mean,
        cost=_cost(model),
        calibration=calibrations.get("ece", float("nan")),
        calibrations=calibrations,
        identities={str(fold): run.record.identity for fold, run in model.folds.items()},
        weights=record.weights if record else (),
        intervals=micro_intervals(model, groups),
    )


def _cost(model: ModelResults) -> Cost | None:
    return cost(model) if model.folds else None


def _estimates(folds: Mapping[int, Mapping[str, float]]) -> dict[str, Estimate]:
    keys = dict.fromkeys(key for numbers in folds.values() for key in numbers)
    return {
        key: statistics.estimate({str(fold): numbers[key] for fold, numbers in folds.items() if key in numbers}) for key in keys
    }


def _calibrations(of_folds: Sequence[Calibration]) -> dict[str, float]:
    """Means over folds; empty without stored probabilities."""
    names = ("ece", "near_ece", "brier", "near_brier") if of_folds else ()
    return {name: sum(getattr(one, name) for one in of_folds) / len(of_folds) for name in names}


def _class_estimates(scores: Mapping[int, Scores]) -> dict[str, dict[str, Estimate]]:
    classes: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for fold, one in scores.items():
        for name, numbers in class_numbers(one).items():
            classes[name][fold] = numbers
    return {name: _estimates(folds) for name, folds in classes.items()}


def _families(results: Sequence[ModelResult]) -> tuple[Family, ...]:
    members: dict[str, list[ModelResult]] = {}
    for result in results:
        members.setdefault(result.family, []).append(result)
    families = []
    for family, several in members.items():
        means = {result.model: result.overall[HEADLINE].mean for result in several}
        over_models = statistics.estimate(means)
        defined = [name for name, value in means.items() if is_defined(value)]
        best = max(defined, key=lambda name: means[name]) if defined else ""
        costs = [result.cost for result in several if result.cost is not None]
        one = Family(
            family=family,
            models=tuple(means),
            mean=over_models.mean,
            std=over_models.std,
            best=best,
            mean_parameters=_mean([cost.parameters for cost in costs]),
            mean_training_seconds=_mean([cost.training_seconds for cost in costs]),
            mean_latency=_mean([cost.latency for cost in costs if cost.latency]),
        )
        families.append(one)
    return tuple(sorted(families, key=lambda family: -family.mean if is_defined(family.mean) else 1.0))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _family_tests(families: Sequence[Family], values: PairedScores, resampled: statistics.Matrix) -> tuple[PairTest, ...]:
    """Every two families: a test of each unit's mean over the models of either family."""
    indices = {family.family: [values.names.index(name) for name in family.models] for family in families}
    # Those of --family too, but not what has none.
    present = [name for name in dict.fromkeys((*_FAMILIES, *sorted(indices))) if name in indices and name != "other"]
    if len(present) < 2:
        return ()
    means = np.stack([values.matrix[indices[name]].mean(axis=0) for name in present])
    drawn = np.stack([resampled[:, indices[name]].mean(axis=1) for name in present], axis=1)
    return statistics.paired_tests(present, means, drawn)


def _strata(
    dataset_results: DatasetResults, *, strata: Sequence[str], fraction: float, metadata: Metadata | None
) -> tuple[Stratification, ...]:
    def fingerprint() -> Fingerprint:
        return read_artefact(
            dataset_results.dataset.fingerprint, Fingerprint, f"autoseg_fingerprint {dataset_results.dataset.number}"
        )

    return tuple(stratify(dataset_results, by, fraction, fingerprint, metadata) for by in strata)


def _across(datasets: Sequence[DatasetComparison]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for dataset in datasets:
        for result in dataset.models:
            table.setdefault(result.model, {})[dataset.dataset] = result.overall[HEADLINE].mean
    for row in table.values():
        complete = len(row) == len(datasets) and all(is_defined(value) for value in row.values())
        row["mean"] = sum(row.values()) / len(row) if complete else float("nan")
    order = sorted(table, key=lambda name: -table[name]["mean"] if is_defined(table[name]["mean"]) else 1.0)
    return {name: table[name] for name in order}
