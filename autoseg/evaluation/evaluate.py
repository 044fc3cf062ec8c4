"""A folder of predicted masks against a folder of references."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoseg.evaluation.case import ABSENT, Relabel, Rules, ScoredCase, cldice_of_pair, score_pair
from autoseg.evaluation.pairing import Pair, pair_masks
from autoseg.evaluation.summary import summarise
from autoseg.evaluation.tables import write_scores
from autoseg.io.raw_dataset import read_description
from autoseg.metrics.calibration import EMPTY
from autoseg.metrics.skeleton import THIN
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.scores import Calibration, CaseScore, Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import METRICS
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map, should_use_processes

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Pixels or mm a border may be off and still count as found, unless another tolerance is asked for.
TOLERANCE = 2.0


def evaluate_folders(
    predictions: Path,
    references: Path,
    spec: DatasetSpec | None = None,
    *,
    cases: Collection[str] | None = None,
    output: Path | None = None,
    tolerance: float = TOLERANCE,
    relabel: Relabel | None = None,
    workers: int | None = None,
    processes: bool = False,
) -> Scores:
    """Score every reference's prediction and write scores.json and scores.csv to `output` (default: beside the masks).

    spec: names of the labels; by default from a dataset.json in or above the references' folder, and where there is none
    every value but 0 is a class called by its number. cases: score only these. tolerance: of the surface Dice. relabel:
    values to change in both masks first; `spec` then names what comes of it. Distances are in mm where every reference
    carries a spacing, else in pixels. Metrics that other packages add are scored as well. Where probabilities lie beside the
    masks (<case>.npz), their calibration is scored too. processes: many masks may be scored in worker processes. Raises
    SeveralProblems listing all missing, unreadable and ill-sized masks and all undeclared values.
    """
    if not tolerance >= 0:
        raise AutosegError(f"the tolerance of the surface Dice cannot be {tolerance:g}", "give a distance of 0 or more")
    pairing = pair_masks(predictions, references, cases)
    if pairing.extra:
        names = ", ".join(path.name for path in pairing.extra[:5]) + (", ..." if len(pairing.extra) > 5 else "")
        logger.info(f"{len(pairing.extra)} predictions have no reference and are not scored: {names}")
    added = tuple(name for name, _ in METRICS.usable(METRICS.added()))
    rules = Rules(
        scheme=_scheme(spec or _description_beside(references)), tolerance=tolerance, relabel=relabel or Relabel(), added=added
    )
    scored = _of_all(partial(score_pair, rules=rules), pairing.pairs, workers, processes)
    spaced = [one.spacing is not None for one in scored]
    if any(spaced) and not all(spaced):
        logger.warning(f"{spaced.count(False)} of {len(spaced)} references carry no spacing: all distances are in pixels")
        rules = replace(rules, spaced=False)
        scored = _of_all(partial(score_pair, rules=rules), pairing.pairs, workers, processes)
    if rules.scheme is None:
        _check_derived(scored)
    names_of_all = list(rules.scheme.foreground) if rules.scheme is not None else _derived(scored)
    thin = [name for name in names_of_all if _is_thin(scored, name)]
    filled = [CaseScore(one.case, {name: one.classes.get(name, ABSENT) for name in names_of_all}) for one in scored]
    if thin:
        score_lines = partial(cldice_of_pair, rules=rules, names=thin)
        filled = _with_cldice(filled, _of_all(score_lines, pairing.pairs, workers, processes))
    scores = summarise(filled, "mm" if all(spaced) else "px", tolerance, thin, _calibration(scored))
    write_scores(scores, output or predictions)
    return scores


def _scheme(spec: DatasetSpec | None) -> LabelScheme | None:
    if spec is None:
        return None
    try:
        return spec.label_scheme()
    except ValueError as error:
        raise AutosegError(f"dataset.json: {error}", "correct its labels") from error


def _description_beside(references: Path) -> DatasetSpec | None:
    for folder in (references, references.absolute().parent):
        if (folder / "dataset.json").is_file():
            return read_description(folder / "dataset.json")
    return None


def _of_all(score: Callable[[Pair], T], pairs: Sequence[Pair], workers: int | None, processes: bool) -> list[T]:
    """What `score` gives for every pair. Raises SeveralProblems with the faults of all of them."""
    found: list[T] = []
    faults: list[str] = []
    results = parallel_map(
        partial(_attempt, score),
        pairs,
        workers,
        processes=processes and should_use_processes(len(pairs)),
        name=lambda pair: pair.case,
    )
    for result, problems in progress_bar(results, "scoring", len(pairs)):
        faults += problems
        if result is not None:
            found.append(result)
    if faults:
        raise SeveralProblems("these masks cannot be scored:", faults, "mend or replace the files named")
    return found


def _attempt(score: Callable[[Pair], T], pair: Pair) -> tuple[T | None, list[str]]:
    try:
        return score(pair), []
    except SeveralProblems as several:
        return None, list(several.problems)
    except AutosegError as error:
        return None, [f"{pair.case}: {error.problem}"]


def _derived(scored: Iterable[ScoredCase]) -> list[str]:
    return sorted({name for one in scored for name in one.classes}, key=int)


def _is_thin(scored: Sequence[ScoredCase], name: str) -> bool:
    """Whether the mean width of a class over the set's references is a small share of the images' mean shorter side."""
    holding = [
        (score.tp + score.fn, border, one.side)
        for one in scored
        for (held, score), border in zip(one.classes.items(), one.borders, strict=True)
        if held == name and score.tp + score.fn
    ]
    if not holding:
        return False
    area, length, sides = map(sum, zip(*holding, strict=True))
    return bool(2 * area / length <= THIN * sides / len(holding))


def _with_cldice(cases: Sequence[CaseScore], found: Sequence[dict[str, float]]) -> list[CaseScore]:
    return [
        replace(
            case,
            classes={
                name: replace(score, cldice=values[name]) if name in values else score for name, score in case.classes.items()
            },
        )
        for case, values in zip(cases, found, strict=True)
    ]


def _calibration(scored: Sequence[ScoredCase]) -> Calibration | None:
    known = [one.reliability for one in scored if one.reliability is not None]
    if not known:
        return None
    summed = sum(known, EMPTY)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = summed.confidence / summed.pixels, summed.right / summed.pixels
    return Calibration(
        ece=summed.ece,
        cases=len(known),
        confidence=tuple(map(float, confidence)),
        accuracy=tuple(map(float, accuracy)),
        share=tuple(map(float, summed.pixels / summed.pixels.sum())),
    )


def _check_derived(scored: Sequence[ScoredCase]) -> None:
    """Without declared labels, masks that share no value would all score 0 for a reason nobody wants to hear late."""
    predicted = set().union(*(one.predicted for one in scored)) - {0}
    referred = set().union(*(one.referred for one in scored)) - {0}
    if predicted and referred and not predicted & referred:
        raise AutosegError(
            f"the predictions hold the values {sorted(predicted)[:8]}, the references {sorted(referred)[:8]}: none in common",
            "use the same values for the same classes in both, for example 1 and not 255 for the first class",
        )
