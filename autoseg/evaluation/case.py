"""Scores of one case from its two masks (and probabilities, if saved), which are checked first."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.mask_values import Codings
from autoseg.evaluation.pairing import Pair
from autoseg.fingerprint.mask_coding import MAX_CLASSES, LabelCoding, to_ids
from autoseg.io import Label, align, read_label
from autoseg.metrics.calibration import EMPTY, Reliability, far_from, reliability_of_classes, reliability_of_region
from autoseg.metrics.objects import NO_OBJECTS, ObjectScore, object_score
from autoseg.metrics.overlap import Counts, counts
from autoseg.metrics.rules import UNDEFINED, Metric, is_defined
from autoseg.metrics.skeleton import area_and_border, cldice
from autoseg.metrics.surface import UNDEFINED_SURFACE, SurfaceScore, surface_score
from autoseg.preprocessing.transform import preprocess_label
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import PreprocessingConfig
from autoseg.schema.scores import ClassScore
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import METRICS

Members = Mapping[str, Sequence[int]]
LabelMap = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]


class UnclearValues(SeveralProblems):
    """Values of masks are not clearly class numbers, so all masks must be read to interpret them.

    others: faults with other reasons.
    """

    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relabel:
    """Old value -> new value, applied to masks on reading, if two datasets use different values."""

    prediction: Mapping[int, int] = field(default_factory=dict)
    reference: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How to score the cases of a set. scheme: None if no dataset.json declares the labels.

    spaced: distances in mm if the references have a spacing. tolerance: of nsd. added: names of metrics of other packages.
    codings: what the masks' values mean; None if they are class numbers. resized: compare both masks as this preprocessing
    resizes them, None for their own size. probabilities: use <case>.npz next to the masks. source: the file that declares the
    labels.
    """

    scheme: LabelScheme | None
    tolerance: float
    spaced: bool = True
    relabel: Relabel = Relabel()
    added: tuple[str, ...] = ()
    codings: Codings | None = None
    resized: PreprocessingConfig | None = None
    probabilities: bool = True
    source: str = "dataset.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCase:
    """Scores of one case, and what the summary of the set needs.

    predicted_values, reference_values: those in the masks. side: the image's shorter side in pixels. borders: number of
    border pixels in the reference, for each of `classes`. reliability: of all pixels, and of those near the foreground.
    notes: how the prediction was brought onto the reference's grid.
    """

    case: str
    classes: dict[str, ClassScore]
    predicted_values: frozenset[int]
    reference_values: frozenset[int]
    spacing: tuple[float, float] | None
    side: int
    borders: tuple[int, ...]
    reliability: tuple[Reliability, Reliability] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _MaskPair:
    """Both masks (H, W) of a case, and the values in them."""

    prediction: LabelMap
    reference: LabelMap
    spacing: tuple[float, float] | None
    predicted_values: frozenset[int]
    reference_values: frozenset[int]
    members: Members
    ignore: Mask | None
    notes: tuple[str, ...]


def score_pair(pair: Pair, options: ScoringOptions) -> ScoredCase:
    """Scores of one case without clDice.

    Raises SeveralProblems if the masks differ in size, and UnclearValues if they have undeclared values or are JPEGs.
    """
    masks = _read_pair(pair, options)
    spacing = (masks.spacing if options.spaced else None) or (1.0, 1.0)
    classes = score_case(
        masks.prediction,
        masks.reference,
        members=masks.members,
        ignore=masks.ignore,
        spacing=spacing,
        tolerance=options.tolerance,
        added=options.added,
    )
    borders = tuple(
        area_and_border(mask_of(masks.reference, masks.members[name], masks.ignore))[1] if score.tp + score.fn else 0
        for name, score in classes.items()
    )
    return ScoredCase(
        case=pair.case, classes=classes, predicted_values=masks.predicted_values,
        reference_values=masks.reference_values, spacing=masks.spacing,
        side=min(masks.reference.shape), borders=borders, reliability=_reliability(pair, masks, options),
        notes=masks.notes,
    )  # fmt: skip


def cldice_of_pair(pair: Pair, options: ScoringOptions, names: Collection[str]) -> dict[str, float]:
    """Class -> clDice of one case, for the classes `names`."""
    masks = _read_pair(pair, options)
    return {
        name: cldice(*(mask_of(one, masks.members[name], masks.ignore) for one in (masks.prediction, masks.reference)))
        for name in names
        if name in masks.members
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
    """Scores of each class of one case without clDice (the set decides which classes are thin).

    prediction, reference: (H, W) label values. members: class name -> values. spacing: (row, column). tolerance: of nsd, in
    units of the spacing. added: names of metrics of other packages. Raises AutosegError if one of them fails.
    """
    if not members:
        return {}
    scores = {}
    for name, count in counts(prediction, reference, members, ignore).items():
        surface, objects, added_values = UNDEFINED_SURFACE, NO_OBJECTS, dict.fromkeys(added, UNDEFINED)
        if count.tp + count.fp + count.fn:
            first, second = (mask_of(labels, members[name], ignore) for labels in (prediction, reference))
            surface = surface_score(first, second, spacing, tolerance)
            objects = object_score(first, second)
            added_values = {metric: _added_metric(metric, first, second, spacing) for metric in added}
        scores[name] = class_score(count, surface, added_values, objects)
    return scores


def _added_metric(metric: str, prediction: Mask, reference: Mask, spacing: tuple[float, float]) -> float:
    """Value of a metric of another package. Raises AutosegError if its code fails or the value is out of its range."""
    definition: Metric = METRICS.get(metric)
    try:
        value = float(definition.compute(prediction, reference, spacing))  # type: ignore[misc]
    except Exception as error:  # Code of other packages may raise anything.
        fault = f"fails: {type(error).__name__}: {error}"
        raise AutosegError(f"the metric {metric} of {METRICS.source(metric)} {fault}", "fix or uninstall it") from error
    if is_defined(value) and not definition.lowest <= value <= definition.highest:
        fault = f"returns {value:g}, outside its range of {definition.lowest:g} to {definition.highest:g}"
        raise AutosegError(f"the metric {metric} of {METRICS.source(metric)} {fault}", "fix or uninstall it")
    return value


def class_score(
    count: Counts, surface: SurfaceScore, added: Mapping[str, float], objects: ObjectScore = NO_OBJECTS
) -> ClassScore:
    """All numbers of a class in a case."""
    return ClassScore(
        tp=count.tp, fp=count.fp, fn=count.fn, dice=count.dice, iou=count.iou, precision=count.precision, recall=count.recall,
        hd95=surface.hd95, hd95_diagonal=surface.hd95_diagonal, hd95_pooled=surface.hd95_pooled, asd=surface.asd,
        nsd=surface.nsd, boundary_iou=surface.boundary_iou, cldice=UNDEFINED, area_error=count.area_error,
        area_bias=count.area_bias, object_tp=objects.tp, object_fp=objects.fp, object_fn=objects.fn,
        object_sensitivity=objects.object_sensitivity, object_precision=objects.object_precision, object_f1=objects.object_f1,
        panoptic_quality=objects.panoptic_quality, added=dict(added),
    )  # fmt: skip


ABSENT_CLASS = class_score(Counts(0, 0, 0), UNDEFINED_SURFACE, {})


def mask_of(labels: LabelMap, member: Sequence[int], ignore: Mask | None = None) -> Mask:
    """Mask (H, W) of the pixels with one of the values, without ignored ones."""
    mask = labels == member[0] if len(member) == 1 else np.isin(labels, member)
    return mask if ignore is None else mask & ~ignore


def _read_pair(pair: Pair, options: ScoringOptions) -> _MaskPair:
    stored, reference = read_label(pair.prediction), read_label(pair.reference)
    prediction = align(stored, reference, pair.prediction, pair.reference, "prediction")
    codings = options.codings
    predicted_map = _relabel(_ids(prediction, codings.prediction if codings else None), options.relabel.prediction)
    reference_map = _relabel(_ids(reference, codings.reference if codings else None), options.relabel.reference)
    values = _shared_set(*_values(predicted_map)), _shared_set(*_values(reference_map))
    faults: list[str] = []
    unclear: list[str] = []
    if predicted_map.shape != reference_map.shape:
        sizes = [" x ".join(str(length) for length in array.shape) for array in (predicted_map, reference_map)]
        faults.append(f"{pair.prediction} has {sizes[0]} pixels (rows x columns), {pair.reference} has {sizes[1]}")
    for path, one, present in ((pair.prediction, prediction, values[0]), (pair.reference, reference, values[1])):
        if one.lossy and codings is None:
            unclear.append(f"{path} is a JPEG, whose values are not exact")
        else:
            _check_values(path, present, options, faults, unclear)
    if unclear:
        error = UnclearValues(pair.case, unclear)
        error.others = tuple(faults)
        raise error
    if faults:
        raise SeveralProblems(pair.case, faults)
    if options.resized is not None:
        predicted_map, reference_map = (preprocess_label(one, options.resized) for one in (predicted_map, reference_map))
    if options.scheme is None:
        members: Members = {str(value): (value,) for value in sorted((values[0] | values[1]) - {0})}
        ignore = None
    else:
        members = options.scheme.foreground
        ignore = reference_map == options.scheme.ignore if options.scheme.ignore in values[1] else None
    return _MaskPair(
        prediction=predicted_map,
        reference=reference_map,
        spacing=reference.spacing,
        predicted_values=values[0],
        reference_values=values[1],
        members=members,
        ignore=ignore,
        notes=tuple(note for note in prediction.notes if note.startswith("prediction:")),
    )


def _relabel(labels: LabelMap, mapping: Mapping[int, int]) -> LabelMap:
    if not mapping:
        return labels
    changed: LabelMap = labels.copy()
    for before, after in mapping.items():
        changed[labels == before] = after
    return changed


def _reliability(pair: Pair, masks: _MaskPair, options: ScoringOptions) -> tuple[Reliability, Reliability] | None:
    """Of all pixels and of those near the foreground, from <case>.npz next to the mask; None if there is none.

    Raises AutosegError if the file is damaged or does not fit.
    """
    path = pair.prediction.with_name(f"{pair.case}.npz")
    is_comparable = options.scheme is not None and not options.relabel.prediction and options.resized is None
    if options.scheme is None or not is_comparable or not options.probabilities or not path.is_file():
        return None
    maps = read_probabilities(path, options.scheme.outputs, masks.reference.shape)
    if not options.scheme.regions:
        far = far_from((masks.reference != 0) & (masks.reference != options.scheme.ignore))
        everywhere, near = (reliability_of_classes(maps, masks.reference, left_out) for left_out in _without(masks.ignore, far))
        return everywhere, near
    everywhere, near = EMPTY, EMPTY
    for probability, member in zip(maps, options.scheme.members, strict=True):
        inside = np.isin(masks.reference, member)
        all_but, all_near_but = _without(masks.ignore, far_from(inside))
        everywhere += reliability_of_region(probability, inside, all_but)
        near += reliability_of_region(probability, inside, all_near_but)
    return everywhere, near


def _without(ignore: Mask | None, far: Mask) -> tuple[Mask | None, Mask]:
    """Pixels to leave out: of all, and of those near the foreground."""
    return ignore, far if ignore is None else far | ignore


def read_probabilities(path: Path, outputs: int, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Saved probabilities (K, H, W) of a prediction. Raises AutosegError if the file is damaged or has another shape."""
    remedy = "predict again with --probabilities, or delete the file"
    try:
        shape = _shape_of(path)
        if shape != (outputs, *size):
            # Before it is unpacked: a small file can hold an array of any size.
            raise AutosegError(f"{path} has probabilities of shape {shape}, not {(outputs, *size)}", remedy)
        with np.load(path, allow_pickle=False) as content:
            maps: NDArray[np.float32] = content["probabilities"].astype(np.float32)
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise AutosegError(f"{path} has no readable probabilities: {error}", remedy) from error
    return maps


def _shape_of(path: Path) -> tuple[int, ...]:
    """Shape of the probabilities by their header."""
    with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as stream:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise ValueError(f"version {version} of numpy's format")
        shape, _, _ = readers[version](stream)
    return tuple(int(side) for side in shape)


@lru_cache
def _shared_set(*values: int) -> frozenset[int]:
    """One shared set for all masks with the same values, to save memory."""
    return frozenset(values)


def _values(labels: LabelMap) -> list[int]:
    if labels.dtype == np.uint8:
        return [int(value) for value in np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256]))]
    return [int(value) for value in np.unique(labels)]


def _ids(label: Label, coding: LabelCoding | None) -> LabelMap:
    return label.array if coding is None else to_ids(label, "", coding)


def _check_values(path: Path, values: frozenset[int], options: ScoringOptions, faults: list[str], unclear: list[str]) -> None:
    """Add undeclared values of a mask to the faults, or, if they may be gray levels of classes, to the unclear ones."""
    if len(values) > MAX_CLASSES:
        faults.append(f"{path} has {len(values)} different values: it looks like a picture, not like a mask of class numbers")
        return
    undeclared = sorted(values - set(options.scheme.values)) if options.scheme is not None else []
    if not undeclared or options.scheme is None:
        return
    shown = ", ".join(str(value) for value in undeclared[:8]) + (", ..." if len(undeclared) > 8 else "")
    text = f"{path} has the values {shown}; {options.source} declares {', '.join(map(str, options.scheme.values))}"
    (faults if undeclared[0] < MAX_CLASSES else unclear).append(text)
