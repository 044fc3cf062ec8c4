"""Finished trainings to one comparison."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

import autoseg
from autoseg.comparison import statistics
from autoseg.comparison.cost import cost
from autoseg.comparison.external_validation import external_drops
from autoseg.comparison.paired_scores import PAIRING, Paired, paired
from autoseg.comparison.protocol_checks import check, differences_in_start
from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.comparison.selective_prediction import risk_coverage
from autoseg.comparison.strata import stratify
from autoseg.metrics.rules import DEFINITIONS, RULE, is_defined
from autoseg.models import registry
from autoseg.schema.comparison import (
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
from autoseg.schema.scores import BUILT_IN_METRICS, Scores
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS
from autoseg.support.files import read_artefact

# The number the first study ranks by: mean over foreground classes of Dice from counts summed over a fold, then over folds.
HEADLINE = "pooled.dice"


def compare(
    all_results: Sequence[DatasetResults],
    *,
    metric: str = "dice",
    allow_unequal: bool = False,
    strata: Sequence[str] = (),
    share: float = 0.05,
) -> Comparison:
    """All models of one or several datasets.

    metric: what is tested and ranked, of each case. strata: what to stratify by, see `strata.stratify`; share: of the cases
    that are easy, and hard. Raises SeveralProblems where runs are not equal and `allow_unequal` is False.
    """
    METRICS.get(metric)
    for dataset_results in all_results:
        _refuse_unscored(dataset_results, metric)
    datasets = tuple(_of_dataset(dataset_results, metric, allow_unequal, strata, share) for dataset_results in all_results)
    return Comparison(
        datasets=datasets,
        across=_across(datasets),
        rule=f"{RULE} {PAIRING}",
        definitions=_definitions(all_results),
        versions={"autoseg": autoseg.__version__, "numpy": np.__version__, "python": platform.python_version()},
    )


def _refuse_unscored(dataset_results: DatasetResults, metric: str) -> None:
    """Raises AutosegError where a metric of another package was not installed when a model was scored."""
    if metric in BUILT_IN_METRICS:
        return
    lacking = [
        name
        for name, model in dataset_results.models.items()
        if not all(f"per_image.{metric}" in scores.overall for scores in model.scores.values())
    ]
    if lacking:
        raise AutosegError(
            f"{', '.join(lacking)} on {dataset_results.dataset.name} was scored without the metric {metric!r}",
            f"score again with {METRICS.source(metric)} installed: autoseg_evaluate on the masks in each fold's validation/",
        )


def _definitions(all_results: Sequence[DatasetResults]) -> dict[str, str]:
    """Of the metrics that were scored, those of other packages among them."""
    scored = [
        scores
        for dataset_results in all_results
        for model in dataset_results.models.values()
        for scores in model.scores.values()
    ]
    added = {name: text for scores in scored for name, text in scores.definitions.items() if name not in DEFINITIONS}
    return DEFINITIONS | added


def _of_dataset(
    dataset_results: DatasetResults, metric: str, allow_unequal: bool, strata: Sequence[str], share: float
) -> DatasetComparison:
    notes = check(dataset_results, allow_unequal)
    values, higher_is_better = paired(dataset_results, metric), METRICS.get(metric).higher_is_better
    resampled = statistics.bootstrap_means(values.matrix) if values.units else np.zeros((0, len(values.names)))
    results = tuple(_result(model, values, resampled) for model in dataset_results.models.values())
    several = len(values.names) > 1 and len(values.units) > 1
    first = next(iter(dataset_results.models.values()))
    scores = next(iter(first.scores.values()))
    families = _families(results)
    return DatasetComparison(
        dataset=dataset_results.dataset.name,
        protocol=next(iter(dataset_results.trained.values())).first.record.protocol,
        metric=metric,
        unit=scores.unit,
        tolerance=scores.tolerance,
        classes=tuple(scores.classes),
        cases=len({case for model in dataset_results.models.values() for case in model.cases}),
        units="group" if dataset_results.spec.groups else "case",
        models=results,
        tests=statistics.paired_tests(values.names, values.matrix, resampled) if several else (),
        ranking=statistics.rank(values.names, values.matrix, resampled, higher_is_better) if several else None,
        families=families,
        family_test=_family_test(families, values, resampled) if several else None,
        strata=_strata(dataset_results, strata, share),
        external_validation=external_drops(dataset_results),
        risk_coverage=risk_coverage(dataset_results),
        notes=(*notes, *differences_in_start(dataset_results)),
    )


def _result(model: ModelResults, values: Paired, resampled: statistics.Matrix) -> ModelResult:
    place = values.names.index(model.model)
    known = registry.find_spec(model.model)
    record = model.first.record if model.folds else None
    calibrations = [scores.calibration.ece for scores in model.scores.values() if scores.calibration is not None]
    mean = Interval(float("nan"), float("nan"), float("nan"))
    return ModelResult(
        model=model.model,
        title=known.title if known else model.model,
        family=known.family if known else "other",
        variant=record.variant if record else "",
        pretrained=record.pretrained if record else "",
        folds=tuple(model.folds),
        cases=len(model.cases),
        overall=_estimates({fold: scores.overall for fold, scores in model.scores.items()}),
        classes=_of_classes(model.scores),
        case_mean=statistics.interval(values.matrix[place], resampled[:, place]) if values.units else mean,
        cost=_cost(model),
        calibration=sum(calibrations) / len(calibrations) if calibrations else float("nan"),
        identities={str(fold): run.record.identity for fold, run in model.folds.items()},
    )


def _cost(model: ModelResults) -> Cost | None:
    return cost(model) if model.folds else None


def _estimates(folds: Mapping[int, Mapping[str, float]]) -> dict[str, Estimate]:
    keys = dict.fromkeys(key for numbers in folds.values() for key in numbers)
    return {
        key: statistics.estimate({str(fold): numbers[key] for fold, numbers in folds.items() if key in numbers}) for key in keys
    }


def _of_classes(scores: Mapping[int, Scores]) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for fold, one in scores.items():
        for name, summary in one.classes.items():
            numbers = {f"pooled.{metric}": value for metric, value in summary.pooled.items()}
            numbers |= {f"per_image.{metric}": spread.mean for metric, spread in summary.per_image.items()}
            found[name][fold] = numbers
    return {name: _estimates(folds) for name, folds in found.items()}


def _families(results: Sequence[ModelResult]) -> tuple[Family, ...]:
    members: dict[str, list[ModelResult]] = {}
    for result in results:
        members.setdefault(result.family, []).append(result)
    found = []
    for family, several in members.items():
        means = {result.model: result.overall[HEADLINE].mean for result in several}
        over = statistics.estimate(means)
        known = [name for name, value in means.items() if is_defined(value)]
        best = max(known, key=lambda name: means[name]) if known else ""
        found.append(Family(family=family, models=tuple(means), mean=over.mean, std=over.std, best=best))
    return tuple(sorted(found, key=lambda family: -family.mean if is_defined(family.mean) else 1.0))


def _family_test(families: Sequence[Family], values: Paired, resampled: statistics.Matrix) -> PairTest | None:
    """Generalists against specialists: each unit's mean over the models of either family."""
    known = {family.family: [values.names.index(name) for name in family.models] for family in families}
    if not {"generalist", "specialist"} <= set(known):
        return None
    one, other = known["generalist"], known["specialist"]
    difference = values.matrix[one].mean(axis=0) - values.matrix[other].mean(axis=0)
    drawn = resampled[:, one].mean(axis=1) - resampled[:, other].mean(axis=1)
    p = statistics.signed_rank(difference)
    return PairTest(
        first="generalist",
        second="specialist",
        units=len(values.units),
        difference=statistics.interval(difference, drawn),
        p=p,
        p_adjusted=p,
    )


def _strata(dataset_results: DatasetResults, strata: Sequence[str], share: float) -> tuple[Stratification, ...]:
    def fingerprint() -> Fingerprint:
        return read_artefact(
            dataset_results.dataset.fingerprint, Fingerprint, f"autoseg_fingerprint {dataset_results.dataset.number}"
        )

    return tuple(stratify(dataset_results, by, share, fingerprint) for by in strata)


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
