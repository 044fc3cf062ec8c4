"""How well each model knows where it is wrong: its confidence against the Dice of its held-out cases."""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.comparison.statistics import risk_coverage as curve
from autoseg.metrics.rules import is_defined
from autoseg.prediction.calibration import case_dice, fit, is_empty
from autoseg.schema.comparison import RiskCoverage
from autoseg.schema.prediction import Confidence
from autoseg.schema.scores import CaseScore

# Points of a curve that are kept: what a picture can show.
_POINTS = 100


def risk_coverage(dataset_results: DatasetResults) -> tuple[RiskCoverage, ...]:
    """A curve for each model whose predictions recorded their confidence.

    A case's risk is 1 - its mean Dice, 0 where there was nothing and nothing was found.
    """
    found = (_of_model(name, model) for name, model in dataset_results.trained.items())
    return tuple(one for one in found if one is not None)


def confidences(model: ModelResults) -> dict[str, Confidence]:
    """Case -> what its prediction recorded, of the held-out cases that have it."""
    records = (run.prediction for run in model.folds.values() if run.prediction is not None)
    return {case.case: case.confidence for record in records for case in record.cases if case.confidence is not None}


def calibrated(confidence: Mapping[str, float], scores: Mapping[str, CaseScore]) -> dict[str, float] | None:
    """Case -> expected Dice, by a line of confidence fitted to these cases; None where they are too few for one.

    Lines of all other cases, one for each, would sort them wrongly: the better a case, the lower its line. All that the
    line adds to the order of confidence is what an empty mask is worth, one number for all cases.
    """
    cases = list(confidence)
    empty = [is_empty(scores[case]) for case in cases]
    line = fit([confidence[case] for case in cases], [case_dice(scores[case]) for case in cases], empty, "value")
    return None if line is None else {case: line(confidence[case], none) for case, none in zip(cases, empty, strict=True)}


def _of_model(name: str, model: ModelResults) -> RiskCoverage | None:
    scores = model.cases
    known = {case: one.value for case, one in confidences(model).items() if case in scores}
    plain = {case: value for case, value in known.items() if is_defined(value)}
    if len(plain) < 2:
        return None
    expected = calibrated(plain, scores)
    confidence = expected or plain
    risk = {case: 1 - case_dice(scores[case]) for case in confidence}
    coverage, running, area = curve([confidence[case] for case in risk], list(risk.values()))
    _, _, best = curve([-value for value in risk.values()], list(risk.values()))
    step = max(1, len(coverage) // _POINTS)
    shown = slice((len(coverage) - 1) % step, None, step)
    return RiskCoverage(
        model=name,
        confidence="expected Dice" if expected else "of the prediction",
        coverage=tuple(float(value) for value in coverage[shown]),
        risk=tuple(float(value) for value in running[shown]),
        aurc=area,
        best=best,
        random=sum(risk.values()) / len(risk),
    )
