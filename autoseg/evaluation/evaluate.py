"""Scores of a folder of predicted masks against a folder of references."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from autoseg.evaluation.case import (
    ABSENT_CLASS,
    Relabel,
    ScoredCase,
    ScoringOptions,
    UnclearValues,
    cldice_of_pair,
    score_pair,
)
from autoseg.evaluation.labels import find_scheme, scheme_of
from autoseg.evaluation.mask_values import Codings, decide_codings
from autoseg.evaluation.pairing import Pair, pair_masks
from autoseg.evaluation.summary import summarise
from autoseg.evaluation.tables import write_scores
from autoseg.fingerprint.mask_coding import MAX_CLASSES
from autoseg.metrics.calibration import EMPTY, Reliability
from autoseg.metrics.skeleton import MAX_THIN_WIDTH
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.plan import PreprocessingConfig
from autoseg.schema.scores import Calibration, CaseScore, Scores
from autoseg.support.errors import AutosegError, SeveralProblems, keep_result
from autoseg.support.extensions import METRICS
from autoseg.support.log import progress_bar
from autoseg.support.out_of_memory import is_out_of_memory
from autoseg.support.parallel import parallel_map, should_use_processes

logger = logging.getLogger(__name__)

T = TypeVar("T")
_UNSCORED, _REMEDY = "these masks cannot be scored:", "fix or replace these files"
# Default tolerance of the surface Dice, in pixels or mm.
TOLERANCE = 2.0


def evaluate_folders(
    predictions: Path | Mapping[str, Path],
    references: Path | Mapping[str, Path],
    spec: DatasetSpec | None = None,
    *,
    cases: Collection[str] | None = None,
    output: Path | None = None,
    tolerance: float = TOLERANCE,
    relabel: Relabel | None = None,
    workers: int | None = None,
    processes: bool = False,
    write: bool = True,
    notes: tuple[str, ...] = (),
    resized: PreprocessingConfig | None = None,
    probabilities: bool = True,
) -> Scores:
    """Score the prediction of every reference. Writes scores.json, scores.csv and scores_summary.csv to `output`
    (default: `predictions`).

    predictions, references: a folder, or case -> mask (`RawDataset.references`); predictions of several folders need `spec`,
    and `output` or `write=False`. spec: names of the labels; for a folder by default from dataset.json in it or its parent,
    else from prediction.json. Without these, each value except 0 is a class, named by its number. Masks that are JPEGs, or have
    gray levels instead of labels, such as 0 and 255, are read as autoseg_convert reads them, and `Scores.notes` says so.

    cases: score only these. tolerance: of the surface Dice, in pixels or mm. relabel: values to replace in both masks first;
    `spec` names the new values. processes: allow worker processes. write: False writes nothing. notes: for `Scores.notes`,
    on where the masks come from. resized: compare the masks at the size that this preprocessing gives them, in pixels.
    probabilities: False ignores <case>.npz next to the masks, which may be of another program.

    Distances are in mm if all references have a spacing, else in pixels. Metrics of installed packages are scored as well,
    and calibration if probabilities are next to the masks (<case>.npz). Raises SeveralProblems that lists all missing and
    unreadable masks, all differing sizes and all undeclared values; UnsavedResult with the scores if they cannot be
    written.
    """
    if not tolerance >= 0:
        raise AutosegError(f"the tolerance of the surface Dice cannot be {tolerance:g}", "give a distance of 0 or more")
    pairing = pair_masks(predictions, references, cases)
    if pairing.extra:
        names = ", ".join(path.name for path in pairing.extra[:5]) + (", ..." if len(pairing.extra) > 5 else "")
        logger.info(f"{len(pairing.extra)} predictions have no reference and are not scored: {names}")
    added = tuple(name for name, _ in METRICS.usable(METRICS.added()))
    if spec is None and isinstance(references, Path) and isinstance(predictions, Path):
        scheme, source = find_scheme(predictions, references)
    else:
        scheme, source = None if spec is None else scheme_of(spec), "dataset.json"
    options = ScoringOptions(
        scheme=scheme, source=source, tolerance=tolerance, relabel=relabel or Relabel(), added=added, resized=resized,
        probabilities=probabilities,
        spaced=resized is None,
    )  # fmt: skip
    score_all = partial(_score_all, pairs=pairing.pairs, workers=workers, processes=processes)
    try:
        scored = score_all(partial(score_pair, options=options))
        if scheme is None:
            _check_common_values(scored)
    except UnclearValues as unclear:
        if relabel is not None:
            raise
        options = replace(options, codings=_decide_codings(pairing.pairs, scheme, workers, unclear))
        scored = score_all(partial(score_pair, options=options))
        if scheme is None:
            _check_common_values(scored)
    for note, count in Counter(note for one in scored for note in one.notes).items():
        logger.warning(f"{note} ({count} of {len(scored)} cases)")
    spaced = [one.spacing is not None and options.spaced for one in scored]
    if any(spaced) and not all(spaced):
        logger.warning(f"{spaced.count(False)} of {len(spaced)} references have no spacing: all distances are in pixels")
        options = replace(options, spaced=False)
        scored = score_all(partial(score_pair, options=options))
    class_names = list(options.scheme.foreground) if options.scheme is not None else _classes_by_value(scored)
    thin = [name for name in class_names if _is_thin(scored, name)]
    case_scores = [CaseScore(one.case, {name: one.classes.get(name, ABSENT_CLASS) for name in class_names}) for one in scored]
    if thin:
        score_cldice = partial(cldice_of_pair, options=options, names=thin)
        case_scores = _with_cldice(case_scores, score_all(score_cldice))
    scores = summarise(case_scores, "mm" if all(spaced) else "px", tolerance, thin, _calibration(scored))
    if resized is not None and resized.size is not None:
        notes = (*notes, f"masks were compared at {resized.size[0]} x {resized.size[1]}, the size of the network's input")
    scores = replace(scores, notes=(*notes, *(options.codings.notes if options.codings is not None else ())))
    if write:
        target = output or predictions
        assert isinstance(target, Path), "predictions of several folders need an output"
        with keep_result(scores):
            write_scores(scores, target)
    return scores


def _decide_codings(pairs: Sequence[Pair], scheme: LabelScheme | None, workers: int | None, unclear: UnclearValues) -> Codings:
    """Raises SeveralProblems with the other faults of the first attempt too."""
    try:
        codings = decide_codings(pairs, scheme, workers)
    except SeveralProblems as error:
        raise SeveralProblems(_UNSCORED, [*unclear.others, *error.problems], error.remedy) from error
    for note in codings.notes:
        logger.info(note)
    return codings


def _score_all(score: Callable[[Pair], T], pairs: Sequence[Pair], workers: int | None, processes: bool) -> list[T]:
    """The result of `score` for every pair. Raises SeveralProblems with the faults of all pairs, or UnclearValues."""
    scores: list[T] = []
    faults: list[str] = []
    unclear: list[str] = []
    results = parallel_map(
        partial(_attempt, score),
        pairs,
        workers,
        processes=processes and should_use_processes(len(pairs)),
        name=lambda pair: pair.case,
    )
    for result, problems, unclear_values in progress_bar(results, "scoring", len(pairs)):
        faults += problems
        unclear += unclear_values
        if result is not None:
            scores.append(result)
    if unclear:
        error = UnclearValues(_UNSCORED, unclear, _REMEDY)
        error.others = tuple(faults)
        raise error
    if faults:
        raise SeveralProblems(_UNSCORED, faults, _REMEDY)
    return scores


def _attempt(score: Callable[[Pair], T], pair: Pair) -> tuple[T | None, list[str], list[str]]:
    """The result or the faults; last: those about unclear values."""
    try:
        return score(pair), [], []
    except UnclearValues as unclear:
        return None, list(unclear.others), list(unclear.problems)
    except SeveralProblems as several:
        return None, list(several.problems), []
    except AutosegError as error:
        return None, [f"{pair.case}: {error.problem}"], []
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None, [f"{pair.case}: too large for the memory of this machine"], []


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
    everywhere, near = (sum(ones, EMPTY) for ones in zip(*reliabilities, strict=True))
    confidence, accuracy, share = _bins(everywhere)
    near_confidence, near_accuracy, near_share = _bins(near)
    return Calibration(
        ece=everywhere.ece, brier=everywhere.brier, cases=len(reliabilities), confidence=confidence, accuracy=accuracy,
        share=share, near_ece=near.ece, near_brier=near.brier, near_confidence=near_confidence, near_accuracy=near_accuracy,
        near_share=near_share,
    )  # fmt: skip


def _bins(summed: Reliability) -> tuple[tuple[float, ...], ...]:
    """Mean confidence, accuracy and fraction of the pixels of each bin."""
    with np.errstate(invalid="ignore"):
        numbers = (summed.confidence / summed.pixels, summed.right / summed.pixels, summed.pixels / summed.pixels.sum())
    return tuple(tuple(map(float, one)) for one in numbers)


def _check_common_values(scored: Sequence[ScoredCase]) -> None:
    """Without declared labels: raises UnclearValues if predictions and references have no value in common, or if one side
    has a value that is too high for a class number and that the other side does not have."""
    predicted_values = set().union(*(one.predicted_values for one in scored)) - {0}
    reference_values = set().union(*(one.reference_values for one in scored)) - {0}
    if not predicted_values or not reference_values:
        return
    if not predicted_values & reference_values or max(predicted_values ^ reference_values, default=0) >= MAX_CLASSES:
        raise UnclearValues(
            "the masks do not agree on the classes:",
            [
                f"the predictions have the values {sorted(predicted_values)[:8]}, "
                f"the references {sorted(reference_values)[:8]}: "
                f"{'not the same' if predicted_values & reference_values else 'none in common'}"
            ],
            "use the same values for the same classes in both, for example 1 and not 255 for the first class",
        )
