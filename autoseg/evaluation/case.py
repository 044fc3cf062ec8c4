"""One case: two masks (and probabilities, where they were kept) to scores, after checking that they belong together."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.pairing import Pair
from autoseg.io import read_label
from autoseg.metrics.calibration import EMPTY, Reliability, reliability_of_classes, reliability_of_region
from autoseg.metrics.overlap import Counts, counts
from autoseg.metrics.rules import UNDEFINED, Metric, is_defined
from autoseg.metrics.skeleton import cldice, extent
from autoseg.metrics.surface import NOWHERE, SurfaceScore, surface_score
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.scores import ClassScore
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import METRICS

Members = Mapping[str, Sequence[int]]
LabelMap = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Relabel:
    """Value -> value, applied to masks as they are read, where two datasets name the same thing differently."""

    prediction: Mapping[int, int] = field(default_factory=dict)
    reference: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How all cases of a set are scored. scheme: None where nothing declares the labels.

    spaced: distances in mm, where the references carry a spacing. tolerance: of nsd. added: names of metrics of other packages.
    """

    scheme: LabelScheme | None
    tolerance: float
    spaced: bool = True
    relabel: Relabel = Relabel()
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCase:
    """One case, with what only the whole set can assess: the values met in both masks, the spacing, the shorter side of the
    image and, for each of `classes`, the pixels of the reference's border."""

    case: str
    classes: dict[str, ClassScore]
    predicted: frozenset[int]
    referred: frozenset[int]
    spacing: tuple[float, float] | None
    side: int
    borders: tuple[int, ...]
    reliability: Reliability | None


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Both masks of a case. values: that stand in each."""

    prediction: LabelMap
    reference: LabelMap
    spacing: tuple[float, float] | None
    predicted: frozenset[int]
    referred: frozenset[int]
    members: Members
    ignore: Mask | None


def score_pair(pair: Pair, rules: Rules) -> ScoredCase:
    """Scores of one case, but for clDice. Raises SeveralProblems for masks that do not fit each other or the labels."""
    read = _read(pair, rules)
    spacing = (read.spacing if rules.spaced else None) or (1.0, 1.0)
    classes = score_case(
        read.prediction,
        read.reference,
        members=read.members,
        ignore=read.ignore,
        spacing=spacing,
        tolerance=rules.tolerance,
        added=rules.added,
    )
    borders = tuple(
        extent(mask_of(read.reference, read.members[name], read.ignore))[1] if score.tp + score.fn else 0
        for name, score in classes.items()
    )
    return ScoredCase(
        case=pair.case, classes=classes, predicted=read.predicted, referred=read.referred, spacing=read.spacing,
        side=min(read.reference.shape), borders=borders, reliability=_reliability(pair, read, rules),
    )  # fmt: skip


def cldice_of_pair(pair: Pair, rules: Rules, names: Collection[str]) -> dict[str, float]:
    """clDice of some classes of a case."""
    read = _read(pair, rules)
    return {
        name: cldice(*(mask_of(one, read.members[name], read.ignore) for one in (read.prediction, read.reference)))
        for name in names
        if name in read.members
    }


def score_case(
    prediction: LabelMap,
    reference: LabelMap,
    members: Members,
    ignore: Mask | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
    tolerance: float = 2.0,
    added: Sequence[str] = (),
) -> dict[str, ClassScore]:
    """Scores of each class of one case, but for clDice, which the set decides on.

    Label maps (H, W); members: class name -> values; spacing: (row, column); tolerance: of nsd, in units of the spacing;
    added: names of metrics of other packages. Raises AutosegError where one of those fails.
    """
    if not members:
        return {}
    found = {}
    for name, count in counts(prediction, reference, members, ignore).items():
        surface, more = NOWHERE, dict.fromkeys(added, UNDEFINED)
        if count.tp + count.fp + count.fn:
            first, second = (mask_of(labels, members[name], ignore) for labels in (prediction, reference))
            surface = surface_score(first, second, spacing, tolerance)
            more = {metric: _measured(metric, first, second, spacing) for metric in added}
        found[name] = class_score(count, surface, more)
    return found


def _measured(metric: str, prediction: Mask, reference: Mask, spacing: tuple[float, float]) -> float:
    """A metric of another package. Raises AutosegError where its code fails, or what it gives is no number of its range."""
    known: Metric = METRICS.get(metric)
    try:
        value = float(known.compute(prediction, reference, spacing))  # type: ignore[misc]
    except Exception as error:  # Code of others may raise anything.
        fault = f"fails: {type(error).__name__}: {error}"
        raise AutosegError(f"the metric {metric} of {METRICS.source(metric)} {fault}", "mend or uninstall it") from error
    if is_defined(value) and not known.lowest <= value <= known.highest:
        fault = f"gives {value:g}, beyond its range of {known.lowest:g} to {known.highest:g}"
        raise AutosegError(f"the metric {metric} of {METRICS.source(metric)} {fault}", "mend or uninstall it")
    return value


def class_score(count: Counts, surface: SurfaceScore, added: Mapping[str, float]) -> ClassScore:
    """All numbers of a class in a case."""
    return ClassScore(
        tp=count.tp, fp=count.fp, fn=count.fn, dice=count.dice, iou=count.iou, precision=count.precision, recall=count.recall,
        hd95=surface.hd95, hd95_pooled=surface.hd95_pooled, asd=surface.asd, nsd=surface.nsd, cldice=UNDEFINED,
        added=dict(added),
    )  # fmt: skip


ABSENT = class_score(Counts(0, 0, 0), NOWHERE, {})


def mask_of(labels: LabelMap, member: Sequence[int], ignore: Mask | None = None) -> Mask:
    """Where a label map (H, W) holds one of the values and is not to be ignored."""
    mask = labels == member[0] if len(member) == 1 else np.isin(labels, member)
    return mask if ignore is None else mask & ~ignore


def _read(pair: Pair, rules: Rules) -> _Read:
    prediction, label = read_label(pair.prediction), read_label(pair.reference)
    predicted = _relabelled(prediction.array, rules.relabel.prediction)
    referred = _relabelled(label.array, rules.relabel.reference)
    values = _together(*_values(predicted)), _together(*_values(referred))
    _check(pair, predicted.shape, referred.shape, *values, rules.scheme)
    if rules.scheme is None:
        members: Members = {str(value): (value,) for value in sorted((values[0] | values[1]) - {0})}
        ignore = None
    else:
        members = rules.scheme.foreground
        ignore = referred == rules.scheme.ignore if rules.scheme.ignore in values[1] else None
    return _Read(
        prediction=predicted,
        reference=referred,
        spacing=label.spacing,
        predicted=values[0],
        referred=values[1],
        members=members,
        ignore=ignore,
    )


def _relabelled(labels: LabelMap, mapping: Mapping[int, int]) -> LabelMap:
    if not mapping:
        return labels
    changed: LabelMap = labels.copy()
    for before, after in mapping.items():
        changed[labels == before] = after
    return changed


def _reliability(pair: Pair, read: _Read, rules: Rules) -> Reliability | None:
    """From <case>.npz beside the mask, where there is one and it fits; raises AutosegError where it cannot be read."""
    path = pair.prediction.with_name(f"{pair.case}.npz")
    if rules.scheme is None or rules.relabel.prediction or not path.is_file():
        return None
    maps = read_probabilities(path, rules.scheme.outputs, read.reference.shape)
    if not rules.scheme.regions:
        return reliability_of_classes(maps, read.reference, read.ignore)
    of_regions = (
        reliability_of_region(probability, np.isin(read.reference, member), read.ignore)
        for probability, member in zip(maps, rules.scheme.members, strict=True)
    )
    return sum(of_regions, EMPTY)


def read_probabilities(path: Path, outputs: int, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Probabilities (K, H, W) a prediction kept. Raises AutosegError where they are damaged or do not fit."""
    remedy = "predict again with --probabilities, or delete the file"
    try:
        with np.load(path, allow_pickle=False) as content:
            maps: NDArray[np.float32] = content["probabilities"].astype(np.float32)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AutosegError(f"{path} holds no probabilities: {error}", remedy) from error
    if maps.shape != (outputs, *size):
        raise AutosegError(f"{path} holds probabilities of shape {maps.shape}, not {(outputs, *size)}", remedy)
    return maps


@lru_cache
def _together(*values: int) -> frozenset[int]:
    """One set for all masks that hold the same values."""
    return frozenset(values)


def _values(labels: LabelMap) -> list[int]:
    if labels.dtype == np.uint8:
        return [int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256))]
    return [int(value) for value in np.unique(labels)]


def _check(
    pair: Pair,
    predicted_size: tuple[int, ...],
    referred_size: tuple[int, ...],
    predicted: frozenset[int],
    referred: frozenset[int],
    scheme: LabelScheme | None,
) -> None:
    """Raises SeveralProblems for masks of two sizes and values that no label has."""
    faults = []
    if predicted_size != referred_size:
        sizes = [" x ".join(str(length) for length in size) for size in (predicted_size, referred_size)]
        faults.append(f"{pair.prediction} has {sizes[0]} pixels (rows x columns), {pair.reference} has {sizes[1]}")
    for path, values in ((pair.prediction, predicted), (pair.reference, referred)):
        strange = sorted(values - set(scheme.values)) if scheme is not None else []
        if scheme is not None and strange:
            shown = ", ".join(str(value) for value in strange[:8]) + (", ..." if len(strange) > 8 else "")
            faults.append(f"{path} holds the values {shown}; dataset.json declares {', '.join(map(str, scheme.values))}")
    if faults:
        raise SeveralProblems(pair.case, faults)
