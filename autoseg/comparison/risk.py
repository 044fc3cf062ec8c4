"""How well each model knows where it is wrong: its confidence against the Dice of its held-out cases."""

from __future__ import annotations

from autoseg.comparison.evidence import Evidence, ModelEvidence
from autoseg.comparison.statistics import risk_coverage as curve
from autoseg.metrics.rules import is_defined
from autoseg.prediction.calibration import case_dice
from autoseg.schema.comparison import RiskCoverage

# Points of a curve that are kept: what a picture can show.
_POINTS = 100


def risk_coverage(evidence: Evidence) -> tuple[RiskCoverage, ...]:
    """A curve for each model whose predictions recorded their confidence.

    A case's risk is 1 - its mean Dice, 0 where there was nothing and nothing was found.
    """
    found = (_of_model(name, model) for name, model in evidence.trained.items())
    return tuple(one for one in found if one is not None)


def _of_model(name: str, model: ModelEvidence) -> RiskCoverage | None:
    confidence = {
        case.case: case.confidence.value
        for run in model.folds.values()
        if run.prediction is not None
        for case in run.prediction.cases
        if case.confidence is not None and is_defined(case.confidence.value)
    }
    risk = {case: 1 - case_dice(score) for case, score in model.cases.items() if case in confidence}
    if len(risk) < 2:
        return None
    coverage, running, area = curve([confidence[case] for case in risk], list(risk.values()))
    _, _, best = curve([-value for value in risk.values()], list(risk.values()))
    step = max(1, len(coverage) // _POINTS)
    shown = slice((len(coverage) - 1) % step, None, step)
    return RiskCoverage(
        name,
        "of the prediction (prediction.json)",
        tuple(float(value) for value in coverage[shown]),
        tuple(float(value) for value in running[shown]),
        area,
        best,
        sum(risk.values()) / len(risk),
    )
