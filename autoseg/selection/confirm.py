"""Confirms candidates in folds, on cases that no decision saw, and recommends one of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autoseg.comparison import statistics
from autoseg.comparison.paired_scores import PairedScores, mean_over_classes, pair_scores
from autoseg.comparison.results import DatasetResults, ModelResults
from autoseg.prediction.model_selection import FILE, identities
from autoseg.schema.comparison import Interval, PairTest
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.prediction import BestChoice, Candidate
from autoseg.schema.scores import Scores
from autoseg.schema.selection import Confirmed, ModelSelection
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS
from autoseg.support.files import write_artefact
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)

# A candidate that trains an image in less than so many times the seconds of another is not clearly slower: times vary.
_CLEARLY = 1.1
# Name -> fold -> scores of the fold's held-out cases.
FoldScores = Mapping[str, Mapping[int, Scores]]


def paired(dataset: Dataset, spec: DatasetSpec, scores: FoldScores, metric: str, cases: Sequence[str] | None) -> PairedScores:
    """One value for each candidate and case (or patient). cases: only these; None: all that are scored.

    Raises AutosegError if the metric is defined for none of them.
    """
    kept = None if cases is None else set(cases)
    models = {
        name: ModelResults(model=name, folds={}, scores={fold: _limited(one, kept) for fold, one in folds.items()})
        for name, folds in scores.items()
    }
    values = pair_scores(DatasetResults(dataset, spec, models), metric)
    if not values.units:
        raise AutosegError(
            f"{metric} is defined for no case of {dataset.name} that is compared", "choose another --objective, such as dice"
        )
    return values


def _limited(scores: Scores, cases: set[str] | None) -> Scores:
    return scores if cases is None else replace(scores, cases=tuple(one for one in scores.cases if one.case in cases))


def intervals(values: PairedScores) -> dict[str, Interval]:
    """The mean of each candidate with its 95 % interval."""
    resampled = statistics.bootstrap_means(values.matrix)
    return {
        name: statistics.interval(values.matrix[index], resampled[:, index]) for index, name in enumerate(values.names)
    }


def tests(values: PairedScores) -> tuple[PairTest, ...]:
    """Paired tests of all pairs, with Holm's correction; none for a single candidate or case."""
    if len(values.names) < 2 or len(values.units) < 2:
        return ()
    return statistics.paired_tests(values.names, values.matrix, statistics.bootstrap_means(values.matrix))


def recommend(confirmed: Sequence[Confirmed], pairs: Sequence[PairTest], objective: str) -> tuple[str, str]:
    """The candidate to use, and why: of those that no other one beats significantly the winner of the rungs, or one that trains
    clearly faster.

    Without tests: the winner of the rungs. Raises AutosegError if no candidate could be confirmed.
    """
    higher_is_better = METRICS.get(objective).higher_is_better
    usable = [one for one in confirmed if not one.failed]
    if not usable:
        problems = "; ".join(f"{one.name}: {one.failed}" for one in confirmed)
        raise AutosegError(f"no candidate could be trained on the folds: {problems}", "see the logs in their folders")
    winner = next((one for one in usable if "winner" in one.roles), usable[0])
    others = [one for one in usable if one is not winner]
    if not others:
        alone = "the others failed" if len(confirmed) > 1 else "the winner of the rungs is the planner's default too"
        return winner.name, f"{winner.name} is the only one that was confirmed: {alone}"
    if not pairs:
        return winner.name, f"{winner.name} won the rungs; the held-back cases are too few for a test"
    beaten = {_loser(test, higher_is_better) for test in pairs if _differ(test)}
    # Three tests can contradict each other in a circle.
    left = [one for one in usable if one.name not in beaten] or [winner]
    ahead = winner if winner in left else left[0]
    chosen = min(left, key=lambda one: (one.image_seconds, one.name))
    if ahead.image_seconds <= _CLEARLY * chosen.image_seconds:
        chosen = ahead
    sentences = _sentences(chosen, usable, left, pairs, objective)
    return chosen.name, " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _sentences(
    chosen: Confirmed, usable: Sequence[Confirmed], left: Sequence[Confirmed], pairs: Sequence[PairTest], objective: str
) -> list[str]:
    """Candidates are named by their roles: their names are long."""
    names = {one.name: role_text(one) for one in usable}
    sentences = [_pair_text(test, names, objective) for test in pairs]
    if len(left) == 1:
        sentences.append(f"Recommended is the {names[chosen.name]}: each of the others is worse than another one.")
        return sentences
    speeds = ", ".join(f"{names[one.name]} {one.image_seconds:.2g} s" for one in left)
    together = " and ".join(names[one.name] for one in left)
    cheapest = all(chosen.image_seconds <= one.image_seconds for one in left)
    why = "trains fastest" if cheapest else "is not clearly slower"
    told = f"recommended is the {names[chosen.name]}, which {why} (an image: {speeds})"
    sentences.append(f"{together} cannot be told apart: {told}.")
    return sentences


def role_text(one: Confirmed) -> str:
    """ "winner", or "winner, default"."""
    return ", ".join(one.roles)


def _pair_text(test: PairTest, names: Mapping[str, str], objective: str) -> str:
    difference = test.difference
    verdict = "told apart" if _differ(test) else "not told apart"
    return (
        f"{names[test.first]} against {names[test.second]}: {objective} differs by {difference.mean:+.3f} (95 % interval "
        f"{difference.low:+.3f} to {difference.high:+.3f}, p = {test.p_adjusted:.2g} after Holm): {verdict}."
    )


def _differ(test: PairTest) -> bool:
    return test.p_adjusted < statistics.LEVEL


def _loser(test: PairTest, higher_is_better: bool) -> str:
    first_is_better = (test.difference.mean > 0) == higher_is_better
    return test.second if first_is_better else test.first


def write_best(dataset: Dataset, selection: ModelSelection, scores: FoldScores) -> None:
    """best.json for the recommended candidate, so that `autoseg_predict -m best` predicts with its folds.

    Its honest Dice is of the held-back cases. Nothing is post-processed: autoseg_find_best chooses that.
    """
    dice = {
        one.name: [mean_over_classes(case, "dice") for fold in scores[one.name].values() for case in fold.cases]
        for one in selection.confirmed
        if not one.failed
    }
    means = {name: float(np.nanmean(values)) if not np.all(np.isnan(values)) else math.nan for name, values in dice.items()}
    chosen = next(one for one in selection.confirmed if one.name == selection.recommended)
    runs = {one.name: one.run for one in selection.confirmed}
    folds = tuple(range(chosen.folds))
    logger.info(f"{dataset.results / FILE}: {chosen.run}, which -m best uses from now on")
    ordered = sorted(means, key=lambda name: (name != chosen.name, -means[name]))
    write_artefact(
        dataset.results / FILE,
        BestChoice(
            dataset=dataset.name,
            models=(chosen.run,),
            folds=folds,
            dice=round(means[chosen.name], 5),
            dice_before=round(means[chosen.name], 5),
            nested_dice=chosen.dice.mean,
            nested=(),
            cases=len(dice[chosen.name]),
            candidates=tuple(Candidate((runs[name],), round(means[name], 5)) for name in ordered),
            postprocessing={},
            identities=identities(dataset, (chosen.run,), folds),
            command=selection.predict,
            saw_scored_cases=(),
            held_back=chosen.cases,
        ),
    )
