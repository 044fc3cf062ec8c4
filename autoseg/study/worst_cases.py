"""The cases of a fold that a model segments worst, for heat maps."""

from __future__ import annotations

from autoseg.comparison.paired_scores import has_foreground, mean_over_classes
from autoseg.metrics.rules import is_defined
from autoseg.schema.scores import Scores


def worst_cases(scores: Scores, number: int) -> list[str]:
    """Names of the cases with the lowest Dice (mean over classes), the worst first, ties by name. Cases whose reference is
    empty are left out: nothing could be looked for in them."""
    dice = {case.case: mean_over_classes(case, "dice") for case in scores.cases if has_foreground(case)}
    ranked = sorted((value, case) for case, value in dice.items() if is_defined(value))
    return [case for _, case in ranked[:number]]
