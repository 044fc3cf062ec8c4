"""The summary sentence of a dataset. It says nothing that its conditions (see `Conditions`) forbid."""

from __future__ import annotations

from autoseg.comparison.cells import interval, ordered_by_dice, percent, tested_metric
from autoseg.comparison.statistics import LEVEL, can_be_significant
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import HEADLINE, DatasetComparison, ModelResult
from autoseg.schema.frame import count
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS


def summary(dataset: DatasetComparison) -> str:
    """The best model of these trainings, the next one, and from which the tests separate it, in which direction.

    Of unequal runs no model is called the best. Cases are called held-out only if it is known that no choice saw them.
    """
    best, *others = ordered_by_dice(dataset)
    what, found = f"{dataset.cases} cases of {dataset.dataset}", dataset.conditions
    if found.unequal:
        return f"The runs on {what} are not equal, so none is called the best; mDSC from {_span(dataset)} %."
    if found.saw_scored_cases:
        what += f", which also chose the {' and the '.join(found.saw_scored_cases)}"
    elif found.seeds and not (found.unknown or found.unrecorded):
        what = f"{dataset.cases} held-out cases of {dataset.dataset}"
    limits = best.intervals.get(HEADLINE)
    interval_text = f"; 95 % interval {interval(limits, 'dice')}" if limits is not None and is_defined(limits.low) else ""
    dice = f"{percent(best.overall[HEADLINE].mean)} %{interval_text}"
    if not others:
        return f"On {what}: {_named(best, dataset)} has mDSC {dice}. It is the only model."
    second = f"{_named(others[0], dataset)} with {percent(others[0].overall[HEADLINE].mean)} %"
    text = f"On {what}: of these trainings, {_named(best, dataset)} has the highest mDSC ({dice}), followed by {second}."
    return f"{text} {_tested(best.model, dataset)}" if dataset.tests else text


def _named(result: ModelResult, dataset: DatasetComparison) -> str:
    """With its start where the starts differ: then the start is part of what is compared."""
    if not (dataset.conditions.random and dataset.conditions.published):
        return result.model
    start = {True: " (random start)", False: " (published start)"}
    known = result.model in (*dataset.conditions.random, *dataset.conditions.published)
    return result.model + (start[result.model in dataset.conditions.random] if known else "")


def _span(dataset: DatasetComparison) -> str:
    means = [(result.overall[HEADLINE].mean, result.model) for result in dataset.models]
    defined = sorted(one for one in means if is_defined(one[0]))
    if not defined:
        return "–"
    (low, worst), (high, best) = defined[0], defined[-1]
    return f"{percent(low)} ({worst}) to {percent(high)} ({best})"


def _tested(best: str, dataset: DatasetComparison) -> str:
    """What the tests say of the best model by mDSC; they are of another number, which may point the other way."""
    units, pairs = dataset.tests[0].units, len(dataset.tests)
    if not can_be_significant(units, pairs) and all(test.p_adjusted >= LEVEL for test in dataset.tests):
        return f"{count(units, dataset.units)} and {count(pairs, 'pair')} are too few for paired tests to tell any difference."
    verdicts: dict[str, list[str]] = {}
    for test in dataset.tests:
        if best in (test.first, test.second):
            other = test.second if test.first == best else test.first
            difference = test.difference.mean if test.first == best else -test.difference.mean
            better = (difference > 0) == _higher_is_better(dataset.metric)
            verdict = "no significant difference from"
            if test.p_adjusted < LEVEL:
                verdict = "significantly better than" if better else "significantly worse than"
            verdicts.setdefault(verdict, []).append(other)
    said = "; ".join(f"{verdict} {', '.join(sorted(names))}" for verdict, names in sorted(verdicts.items(), reverse=True))
    return f"Paired tests of the {dataset.units}s' {tested_metric(dataset)}, for these trainings only: {said}."


def _higher_is_better(metric: str) -> bool:
    try:
        return bool(METRICS.get(metric).higher_is_better)
    except AutosegError:
        # A metric of a package that is not installed here: as most metrics.
        return True
