"""Selective prediction: risk-coverage curves of each model, from its confidence and the Dice of its held-out cases."""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.comparison.statistics import augrc
from autoseg.comparison.statistics import risk_coverage as curve
from autoseg.metrics.rules import is_defined
from autoseg.prediction.calibration import case_dice, fit, is_empty
from autoseg.schema.comparison import RiskCoverage
from autoseg.schema.prediction import Confidence
from autoseg.schema.scores import CaseScore

# Points of a stored curve.
_POINTS = 100


def risk_coverage(dataset_results: DatasetResults) -> tuple[RiskCoverage, ...]:
    """A curve for each model whose predictions recorded their confidence.

    The risk of a case is 1 - its mean Dice, and 0 if both masks are empty.
    """
    groups = dataset_results.case_groups
    curves = (_risk_coverage(name, model, groups) for name, model in dataset_results.trained.items())
    return tuple(one for one in curves if one is not None)


def confidences(model: ModelResults) -> dict[str, Confidence]:
    """Case -> recorded confidence, for the held-out cases that have one."""
    records = (run.prediction for run in model.folds.values() if run.prediction is not None)
    return {case.case: case.confidence for record in records for case in record.cases if case.confidence is not None}


def calibrated(
    confidence: Mapping[str, float], scores: Mapping[str, CaseScore], groups: Mapping[str, str]
) -> dict[str, float] | None:
    """Case -> expected Dice, from a line fitted to the confidence of these cases; None if there are too few.

    Leave-one-out lines would bias the order: the better a case, the lower the line of the others. The only change of the
    order by this line is the expected Dice of empty masks, one number for all cases.
    """
    cases = list(confidence)
    empty = [is_empty(scores[case]) for case in cases]
    dice = [case_dice(scores[case]) for case in cases]
    line = fit([confidence[case] for case in cases], dice, empty, [groups[case] for case in cases], "value")
    return None if line is None else {case: line(confidence[case], is_none) for case, is_none in zip(cases, empty, strict=True)}


def _risk_coverage(name: str, model: ModelResults, groups: Mapping[str, str]) -> RiskCoverage | None:
    scores = model.cases
    recorded = {case: one.value for case, one in confidences(model).items() if case in scores}
    defined = {case: value for case, value in recorded.items() if is_defined(value)}
    if len(defined) < 2:
        return None
    expected = calibrated(defined, scores, groups)
    confidence = expected or defined
    risk = {case: 1 - case_dice(scores[case]) for case in confidence}
    coverage, running, area = curve([confidence[case] for case in risk], list(risk.values()))
    perfect = curve([-value for value in risk.values()], list(risk.values()))
    step = max(1, len(coverage) // _POINTS)
    shown = slice((len(coverage) - 1) % step, None, step)
    return RiskCoverage(
        model=name,
        confidence="expected Dice" if expected else "of the prediction",
        coverage=tuple(float(value) for value in coverage[shown]),
        risk=tuple(float(value) for value in running[shown]),
        aurc=area,
        best=perfect[2],
        random=sum(risk.values()) / len(risk),
        augrc=augrc(coverage, running),
        best_augrc=augrc(perfect[0], perfect[1]),
    )
