"""A folder of predicted masks against a folder of references."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.pairing import Pair, pair_masks
from autoseg.evaluation.summary import summarise
from autoseg.evaluation.tables import write_scores
from autoseg.io import Label, read_label
from autoseg.io.raw_dataset import read_description
from autoseg.metrics.overlap import Counts, counts
from autoseg.metrics.rules import UNDEFINED, distance_is_defined
from autoseg.metrics.surface import hd95
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.scores import CaseScore, ClassScore, Scores
from autoseg.support import log
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workers import ordered_map

Members = Mapping[str, Sequence[int]]
LabelMap = NDArray[np.integer[Any]]


def evaluate_folders(
    predictions: Path,
    references: Path,
    spec: DatasetSpec | None = None,
    *,
    cases: Collection[str] | None = None,
    output: Path | None = None,
    workers: int | None = None,
) -> Scores:
    """Score every reference's prediction and write scores.json and scores.csv to `output` (default: beside the masks).

    spec: names of the labels; by default from a dataset.json in or above the references' folder, and where there is none
    every value but 0 is a class called by its number. cases: score only these. Distances are in mm where every reference
    carries a spacing, else in pixels. Raises SeveralProblems listing all missing, unreadable and ill-sized masks and all
    undeclared values.
    """
    pairing = pair_masks(predictions, references, cases)
    if pairing.extra:
        names = ", ".join(path.name for path in pairing.extra[:5]) + (", ..." if len(pairing.extra) > 5 else "")
        log.say(f"{len(pairing.extra)} predictions have no reference and are not scored: {names}")
    labels = _labels(spec or _description_beside(references))
    scored = _score_all(pairing.pairs, labels, True, workers)
    spaced = [one.spacing is not None for one in scored]
    if any(spaced) and not all(spaced):
        log.warn(f"{spaced.count(False)} of {len(spaced)} references carry no spacing: all distances are in pixels")
        scored = _score_all(pairing.pairs, labels, False, workers)
    if labels is None:
        _check_derived(scored)
    names_of_all = labels.members if labels is not None else sorted({name for one in scored for name in one.classes}, key=int)
    filled = [CaseScore(one.case, {name: one.classes.get(name, _ABSENT) for name in names_of_all}) for one in scored]
    scores = summarise(filled, unit="mm" if all(spaced) else "px")
    write_scores(scores, output or predictions)
    return scores


@dataclass(frozen=True)
class _Labels:
    """members: class name -> values. values: all that may stand in a mask."""

    members: Members
    ignore: int | None
    values: tuple[int, ...]


@dataclass(frozen=True)
class _Scored:
    """One case, with what only the whole set can judge: the values met in both masks and the spacing."""

    case: str
    classes: dict[str, ClassScore]
    predicted: frozenset[int]
    referred: frozenset[int]
    spacing: tuple[float, float] | None


def _labels(spec: DatasetSpec | None) -> _Labels | None:
    if spec is None:
        return None
    try:
        scheme = spec.label_scheme()
    except ValueError as error:
        raise AutosegError(f"dataset.json: {error}", "correct its labels") from error
    return _Labels(scheme.foreground, scheme.ignore, scheme.values)


def _description_beside(references: Path) -> DatasetSpec | None:
    for folder in (references, references.absolute().parent):
        if (folder / "dataset.json").is_file():
            return read_description(folder / "dataset.json")
    return None


def _score_all(pairs: Sequence[Pair], labels: _Labels | None, spaced: bool, workers: int | None) -> list[_Scored]:
    """Scores by case. Raises SeveralProblems with the faults of all cases."""
    found: list[_Scored] = []
    faults: list[str] = []

    def attempt(pair: Pair) -> _Scored | list[str]:
        try:
            return _score(pair, labels, spaced)
        except SeveralProblems as several:
            return list(several.problems)
        except AutosegError as error:
            return [f"{pair.case}: {error.problem}"]

    for result in log.progress(ordered_map(attempt, pairs, workers), "scoring", len(pairs)):
        if isinstance(result, _Scored):
            found.append(result)
        else:
            faults += result
    if faults:
        raise SeveralProblems("these masks cannot be scored:", faults, "mend or replace the files named")
    return found


def _score(pair: Pair, labels: _Labels | None, spaced: bool) -> _Scored:
    prediction, reference = read_label(pair.prediction), read_label(pair.reference)
    predicted, referred = (frozenset(_values(label.array)) for label in (prediction, reference))
    _check(pair, prediction, reference, predicted, referred, labels)
    if labels is not None:
        members: Members = labels.members
        ignored = reference.array == labels.ignore if labels.ignore in referred else None
    else:
        members = {str(value): (value,) for value in sorted((predicted | referred) - {0})}
        ignored = None
    spacing = reference.spacing if spaced else None
    classes = score_case(prediction.array, reference.array, members, ignored, spacing or (1.0, 1.0))
    return _Scored(pair.case, classes, predicted, referred, reference.spacing)


def score_case(
    prediction: LabelMap,
    reference: LabelMap,
    members: Members,
    ignore: NDArray[np.bool_] | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> dict[str, ClassScore]:
    """Scores of each class of one case. Label maps (H, W); members: class name -> values; spacing: (row, column)."""
    if not members:
        return {}
    found = {}
    for name, count in counts(prediction, reference, members, ignore).items():
        distance = UNDEFINED
        if distance_is_defined(count.tp + count.fp > 0, count.tp + count.fn > 0):
            first, second = (_mask(labels, members[name], ignore) for labels in (prediction, reference))
            distance = hd95(first, second, spacing)
        found[name] = _class_score(count, distance)
    return found


def _class_score(count: Counts, distance: float) -> ClassScore:
    return ClassScore(count.tp, count.fp, count.fn, count.dice, count.iou, count.precision, count.recall, distance)


_ABSENT = _class_score(Counts(0, 0, 0), UNDEFINED)


def _mask(labels: LabelMap, member: Sequence[int], ignore: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    mask = labels == member[0] if len(member) == 1 else np.isin(labels, member)
    return mask if ignore is None else mask & ~ignore


def _values(labels: LabelMap) -> list[int]:
    if labels.dtype == np.uint8:
        return [int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256))]
    return [int(value) for value in np.unique(labels)]


def _check(
    pair: Pair,
    prediction: Label,
    reference: Label,
    predicted: frozenset[int],
    referred: frozenset[int],
    labels: _Labels | None,
) -> None:
    """Raises SeveralProblems for masks of two sizes and values that no label has."""
    faults = []
    if prediction.array.shape != reference.array.shape:
        sizes = [" x ".join(str(length) for length in label.array.shape) for label in (prediction, reference)]
        faults.append(f"{pair.prediction} has {sizes[0]} pixels (rows x columns), {pair.reference} has {sizes[1]}")
    for path, values in ((pair.prediction, predicted), (pair.reference, referred)):
        strange = sorted(values - set(labels.values)) if labels is not None else []
        if labels is not None and strange:
            shown = ", ".join(str(value) for value in strange[:8]) + (", ..." if len(strange) > 8 else "")
            faults.append(f"{path} holds the values {shown}; dataset.json declares {', '.join(map(str, labels.values))}")
    if faults:
        raise SeveralProblems(pair.case, faults)


def _check_derived(scored: Sequence[_Scored]) -> None:
    """Without declared labels, masks that share no value would all score 0 for a reason nobody wants to hear late."""
    predicted = set().union(*(one.predicted for one in scored)) - {0}
    referred = set().union(*(one.referred for one in scored)) - {0}
    if predicted and referred and not predicted & referred:
        raise AutosegError(
            f"the predictions hold the values {sorted(predicted)[:8]}, the references {sorted(referred)[:8]}: none in common",
            "use the same values for the same classes in both, for example 1 and not 255 for the first class",
        )
