"""Maps mask values to consecutive class ids, and merges the mask files of one image into one label map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoseg.fingerprint.validation import count_values
from autoseg.io import Label
from autoseg.io.types import Array

# More values than this are no class numbers.
MAX_CLASSES = 32
_PEAK_RADIUS = 20  # gray levels around a peak that JPEG's noise fills
_MIN_PEAK_DISTANCE = 60  # gray levels between peaks
_PEAK_SHARE = 0.001
_CERTAIN_SHARE = 0.98
_MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """Content of a mask file. counts: value -> pixels. kind: as in MaskFile."""

    path: Path
    kind: str
    counts: dict[int, int]
    lossy: bool
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class LabelCoding:
    """How mask values become class ids. labels: names by id. table: value -> id, for masks of all classes.

    levels: see `_jpeg_levels`. kinds: class in a file or folder name -> id; empty if each mask holds all classes.
    """

    labels: tuple[str, ...] = ()
    table: dict[int, int] = field(default_factory=dict)
    levels: tuple[int, ...] = ()
    kinds: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def count_mask_values(path: Path, kind: str, label: Label) -> MaskFacts:
    """Count the values of a mask."""
    counts = count_values(label.array)
    return MaskFacts(
        path=path,
        kind=kind,
        counts={int(v): int(counts[v]) for v in np.flatnonzero(counts)},
        lossy=label.lossy,
        notes=label.notes,
    )


def decide_coding(facts: Sequence[MaskFacts], labels: Sequence[str] | None) -> LabelCoding:
    """Decide what the mask values of a dataset mean. labels: names by id, background first; None: one class for each value."""
    coding = LabelCoding()
    declared = _declared_labels(labels, coding)
    coding.levels = _jpeg_levels([fact for fact in facts if fact.lossy], coding)
    kinds = Counter(fact.kind for fact in facts)
    if coding.problems:
        return coding
    if set(kinds) - {""}:
        _code_kinds(facts, kinds, declared, coding)
    else:
        _code_values(facts, declared, coding)
    return coding


def encode(labels: Sequence[tuple[Label, str]], coding: LabelCoding) -> tuple[npt.NDArray[np.uint8], int]:
    """The masks of one image as class ids (H, W), and how many pixels two masks assign to different classes.

    If each class has its own file, the higher id wins.
    """
    shape = labels[0][0].array.shape
    ids = np.zeros(shape, np.uint8)
    overlap = 0
    coded = [(to_ids(label, kind, coding), kind) for label, kind in labels]
    for one, _ in sorted(coded, key=lambda item: coding.kinds.get(item[1], 0)):
        both = (one > 0) & (ids > 0) & (one != ids)
        overlap += int(both.sum())
        ids = np.where(one > 0, one, ids)
    return ids, overlap


def to_ids(label: Label, kind: str, coding: LabelCoding) -> npt.NDArray[np.uint8]:
    """A mask (H, W) as class ids. kind: as in MaskFile. Values that the coding does not have become 0."""
    values = _snap_to_levels(label, coding.levels)
    if coding.kinds:
        return np.asarray(np.where(values > 0, coding.kinds[kind], 0), np.uint8)
    table = np.zeros(max([int(values.max(initial=0)), *coding.table]) + 1, np.uint8)
    for value, identity in coding.table.items():
        table[value] = identity
    return np.asarray(table[values])


def _snap_to_levels(label: Label, levels: Sequence[int]) -> Array:
    if not label.lossy:
        return label.array
    nearest = np.abs(np.arange(256)[:, None] - np.array(levels)[None]).argmin(1)
    result: Array = np.array(levels, np.uint8)[nearest][label.array]
    return result


def _declared_labels(labels: Sequence[str] | None, coding: LabelCoding) -> tuple[str, ...]:
    names = tuple(label.strip() for label in labels or ())
    if not names:
        return ()
    if names[0].casefold() != "background":
        coding.notes.append("background added before the declared labels, as value 0")
        names = ("background", *names)
    names = ("background", *names[1:])
    if len({name.casefold() for name in names}) < len(names) or not all(names):
        coding.problems.append(f"labels must be different and not empty: {', '.join(names)}")
    if len(names) < 2:
        coding.problems.append("labels need at least one class besides the background")
    return names


def _jpeg_levels(lossy: Sequence[MaskFacts], coding: LabelCoding) -> tuple[int, ...]:
    """The few values that JPEG masks had before compression; adds a problem if they cannot be recovered."""
    if not lossy:
        return ()
    counts = np.zeros(256)
    for fact in lossy:
        for value, pixels in fact.counts.items():
            counts[value] += pixels
    peaks: list[int] = []
    for value in np.argsort(-counts, kind="stable"):
        if counts[value] < _PEAK_SHARE * counts.sum():
            break
        if all(abs(int(value) - peak) >= _MIN_PEAK_DISTANCE for peak in peaks):
            peaks.append(int(value))
    near = np.any([np.abs(np.arange(256) - peak) <= _PEAK_RADIUS for peak in peaks], axis=0)
    certain = counts[near].sum() / counts.sum()
    if certain < _CERTAIN_SHARE:
        coding.problems.append(
            f"{lossy[0].path} and {len(lossy) - 1} other masks are JPEGs whose compression changed too many values: "
            f"{1 - certain:.1%} of the pixels are between the levels {sorted(peaks)}; save masks as PNG"
        )
    levels = tuple(sorted(0 if peak <= _PEAK_RADIUS else 255 if peak >= 255 - _PEAK_RADIUS else peak for peak in peaks))
    moved = int(sum(pixels for fact in lossy for value, pixels in fact.counts.items() if value not in levels))
    coding.notes.append(f"{len(lossy)} masks are JPEGs: {moved} pixels set to the nearest of {', '.join(map(str, levels))}")
    return levels


def _values_of(fact: MaskFacts, levels: Sequence[int]) -> dict[int, int]:
    """value -> pixels, without JPEG noise."""
    if not fact.lossy:
        return fact.counts
    counts: Counter[int] = Counter()
    for value, pixels in fact.counts.items():
        counts[min(levels, key=lambda level: abs(level - value))] += pixels
    return dict(counts)


def _code_kinds(facts: Sequence[MaskFacts], kinds: Counter[str], declared: Sequence[str], coding: LabelCoding) -> None:
    """One file for each class: every value but 0 is the class."""
    coding.labels = tuple(declared) or ("background", *sorted(set(kinds) - {""}, key=str.casefold))
    ids = {label.casefold(): number for number, label in enumerate(coding.labels)}
    for fact in facts:
        if not fact.kind:
            coding.problems.append(f"{fact.path}: has no class in its name, while other masks do")
        elif fact.kind.casefold() not in ids:
            coding.problems.append(
                f"{fact.path}: its name contains the class {fact.kind!r}, which is not one of {', '.join(coding.labels)}"
            )
        coding.kinds[fact.kind] = ids.get(fact.kind.casefold(), 0)
        values = {value: pixels for value, pixels in _values_of(fact, coding.levels).items() if value}
        if len(values) > 1:
            coding.problems.append(f"{fact.path}: a mask of one class holds several values: {_format_counts(values)}")
    counts = ", ".join(f"{kind} ({number})" for kind, number in sorted(kinds.items()) if kind)
    coding.notes.append(f"masks of one class each were merged; classes from file or folder names: {counts}")


def _code_values(facts: Sequence[MaskFacts], declared: Sequence[str], coding: LabelCoding) -> None:
    """One file for all classes: values 0, 1, 2, ... stay; other values are numbered in their order, if their number fits."""
    files: Counter[int] = Counter()
    pixels: Counter[int] = Counter()
    for fact in facts:
        values = _values_of(fact, coding.levels)
        pixels.update(values)
        files.update(value for value in values if value)
    if declared:
        usual = [value for value, _ in sorted(files.items(), key=lambda item: (-item[1], item[0]))[: len(declared) - 1]]
        plain = all(value < len(declared) for value in usual)
        ordered = list(range(len(declared))) if plain else [0, *sorted(usual)]
        coding.problems += _undeclared_values(facts, declared, ordered, coding)
    else:
        ordered = [0, *sorted(files)]
    if len(ordered) > MAX_CLASSES and not declared:
        coding.problems.append(
            f"the masks hold {len(ordered)} values ({_format_counts(dict(pixels))}), too many for class ids: were they "
            "smoothed or resized? Threshold them, or declare the labels to see which files hold other values"
        )
    elif len(ordered) < 2:
        coding.problems.append("all masks are empty: every pixel is 0")
    if coding.problems:
        return
    coding.labels = tuple(declared) or ("background", *(f"foreground{number}" for number in range(1, len(ordered))))
    coding.table = {value: number for number, value in enumerate(ordered)}
    if not declared:
        named = (
            f"{coding.labels[number]} ({value}, in {files[value]} files)" for value, number in coding.table.items() if value
        )
        coding.notes.append(f"labels named by the values found: {', '.join(named)}")
    if ordered != list(range(len(ordered))):
        pairs = ", ".join(f"{value} became {number}" for value, number in coding.table.items() if value)
        coding.notes.append(f"mask values {{{', '.join(map(str, ordered))}}} were renumbered: {pairs}")


def _undeclared_values(
    facts: Iterable[MaskFacts], declared: Sequence[str], ordered: Sequence[int], coding: LabelCoding
) -> list[str]:
    problems = []
    if len(ordered) < len(declared):
        values = f"only {', '.join(map(str, ordered))} for {', '.join(declared)}"
        problems.append(f"the masks hold {values}: the values are ambiguous; number the classes 0, 1, 2, ...")
        return problems
    for fact in facts:
        others = {value: pixels for value, pixels in _values_of(fact, coding.levels).items() if value not in ordered}
        if others:
            expected = ", ".join(f"{value} {name}" for value, name in zip(ordered, declared, strict=True))
            problems.append(f"{fact.path}: undeclared values {_format_counts(others)}; declared are {expected}")
    return problems


def _format_counts(counts: dict[int, int]) -> str:
    values = sorted(counts)
    more = f" and {len(values) - _MAX_SHOWN} more" if len(values) > _MAX_SHOWN else ""
    return ", ".join(f"{value} ({counts[value]} pixels)" for value in values[:_MAX_SHOWN]) + more
