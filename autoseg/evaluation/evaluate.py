"""Scores of a folder of predicted masks against a folder of references."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoseg.evaluation.case import ABSENT_CLASS, Relabel, ScoredCase, ScoringOptions, cldice_of_pair, score_pair
from autoseg.evaluation.pairing import Pair, pair_masks
from autoseg.evaluation.summary import summarise
from autoseg.evaluation.tables import write_scores
from autoseg.io.raw_dataset import read_description
from autoseg.metrics.calibration import EMPTY
from autoseg.metrics.skeleton import MAX_THIN_WIDTH
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.scores import Calibration, CaseScore, Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import METRICS
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map, should_use_processes

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Default tolerance of the surface Dice, in pixels or mm.
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
    """Score the prediction of every reference. Writes scores.json and scores.csv to `output` (default: `predictions`).

    spec: names of the labels; by default from dataset.json in the references' folder or its parent. Without it, each value
    except 0 is a class, named by its number. cases: score only these. tolerance: of the surface Dice, in pixels or mm.
    relabel: values to replace in both masks first; `spec` names the new values. processes: allow worker processes.

    Distances are in mm if all references have a spacing, else in pixels. Metrics of installed packages are scored as well,
    and calibration if probabilities are next to the masks (<case>.npz). Raises SeveralProblems that lists all missing and
    unreadable masks, all differing sizes and all undeclared values.
    """
    if not tolerance >= 0:
        raise AutosegError(f"the tolerance of the surface Dice cannot be {tolerance:g}", "give a distance of 0 or more")
    pairing = pair_masks(predictions, references, cases)
    if pairing.extra:
        names = ", ".join(path.name for path in pairing.extra[:5]) + (", ..." if len(pairing.extra) > 5 else "")
        logger.info(f"{len(pairing.extra)} predictions have no reference and are not scored: {names}")
    added = tuple(name for name, _ in METRICS.usable(METRICS.added()))
    options = ScoringOptions(
        scheme=_scheme(spec or _find_description(references)), tolerance=tolerance, relabel=relabel or Relabel(), added=added
    )
    scored = _score_all(partial(score_pair, options=options), pairing.pairs, workers, processes)
    spaced = [one.spacing is not None for one in scored]
    if any(spaced) and not all(spaced):
        logger.warning(f"{spaced.count(False)} of {len(spaced)} references have no spacing: all distances are in pixels")
        options = replace(options, spaced=False)
        scored = _score_all(partial(score_pair, options=options), pairing.pairs, workers, processes)
    if options.scheme is None:
        _check_common_values(scored)
    class_names = list(options.scheme.foreground) if options.scheme is not None else _classes_by_value(scored)
    thin = [name for name in class_names if _is_thin(scored, name)]
    case_scores = [CaseScore(one.case, {name: one.classes.get(name, ABSENT_CLASS) for name in class_names}) for one in scored]
    if thin:
        score_cldice = partial(cldice_of_pair, options=options, names=thin)
        case_scores = _with_cldice(case_scores, _score_all(score_cldice, pairing.pairs, workers, processes))
    scores = summarise(case_scores, "mm" if all(spaced) else "px", tolerance, thin, _calibration(scored))
    write_scores(scores, output or predictions)
    return scores


def _scheme(spec: DatasetSpec | None) -> LabelScheme | None:
    if spec is None:
        return None
    try:
        return spec.label_scheme()
    except ValueError as error:
        raise AutosegError(f"dataset.json: {error}", "correct the labels in this file") from error


def _find_description(references: Path) -> DatasetSpec | None:
    for folder in (references, references.absolute().parent):
        if (folder / "dataset.json").is_file():
            return read_description(folder / "dataset.json")
    return None


def _score_all(score: Callable[[Pair], T], pairs: Sequence[Pair], workers: int | None, processes: bool) -> list[T]:
    """The result of `score` for every pair. Raises SeveralProblems with the faults of all pairs."""
    scores: list[T] = []
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
            scores.append(result)
    if faults:
        raise SeveralProblems("these masks cannot be scored:", faults, "fix or replace these files")
    return scores


def _attempt(score: Callable[[Pair], T], pair: Pair) -> tuple[T | None, list[str]]:
    try:
        return score(pair), []
    except SeveralProblems as several:
        return None, list(several.problems)
    except AutosegError as error:
        return None, [f"{pair.case}: {error.problem}"]


def _classes_by_value(scored: Iterable[ScoredCase]) -> list[str]:
    return sorted({name for one in scored for name in one.classes}, key=int)


def _is_thin(scored: Sequence[ScoredCase], name: str) -> bool:
    """Whether the mean width of a class over all references is at most `MAX_THIN_WIDTH` of the images' mean shorter side."""
    present = [
        (score.tp + score.fn, border, one.side)
        for one in scored
        for (class_name, score), border in zip(one.classes.items(), one.borders, strict=True)
        if class_name == name and score.tp + score.fn
    ]
    if not present:
        return False
    area, length, sides = map(sum, zip(*present, strict=True))
    return bool(2 * area / length <= MAX_THIN_WIDTH * sides / len(present))


def _with_cldice(cases: Sequence[CaseScore], cldices: Sequence[dict[str, float]]) -> list[CaseScore]:
    return [
        replace(
            case,
            classes={
                name: replace(score, cldice=values[name]) if name in values else score for name, score in case.classes.items()
            },
        )
        for case, values in zip(cases, cldices, strict=True)
    ]


def _calibration(scored: Sequence[ScoredCase]) -> Calibration | None:
    reliabilities = [one.reliability for one in scored if one.reliability is not None]
    if not reliabilities:
        return None
    summed = sum(reliabilities, EMPTY)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = summed.confidence / summed.pixels, summed.right / summed.pixels
    return Calibration(
        ece=summed.ece,
        cases=len(reliabilities),
        confidence=tuple(map(float, confidence)),
        accuracy=tuple(map(float, accuracy)),
        share=tuple(map(float, summed.pixels / summed.pixels.sum())),
    )


def _check_common_values(scored: Sequence[ScoredCase]) -> None:
    """Without declared labels: raises AutosegError if predictions and references have no value in common."""
    predicted = set().union(*(one.predicted for one in scored)) - {0}
    referred = set().union(*(one.referred for one in scored)) - {0}
    if predicted and referred and not predicted & referred:
        raise AutosegError(
            f"the predictions have the values {sorted(predicted)[:8]}, the references {sorted(referred)[:8]}: none in common",
            "use the same values for the same classes in both, for example 1 and not 255 for the first class",
        )
