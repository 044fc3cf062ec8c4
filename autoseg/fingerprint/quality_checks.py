"""What a person should look at: nothing here stops the work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from autoseg.fingerprint.case import SeenMask
from autoseg.fingerprint.links import groups
from autoseg.fingerprint.near_duplicates import Likeness
from autoseg.fingerprint.objects import SPECK
from autoseg.fingerprint.row_file import RowFile
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint, Finding

_TINY_SHARE = 1e-4  # of the image: 7 pixels of 256 x 256
_BLANK = 0.01
_DRAWN_OVER = 5e-4  # of the image: 33 pixels of 256 x 256, a few letters
_ASTRAY = 0.5  # of the foreground
_AGREE = 0.5  # Dice of the masks of one picture, below which they contradict each other
_LISTED = 1000  # pairs that contradict each other and are told one by one


def check_quality(
    spec: DatasetSpec,
    cases: Sequence[CaseFingerprint],
    likeness: Likeness,
    masks: Sequence[SeenMask],
    outlines: RowFile,
) -> tuple[Finding, ...]:
    """All findings, duplicates first. masks, outlines (of the foreground, flattened): one for each case.

    likeness: without pairs of equal pixels.
    """
    return (
        *_exact(cases, masks),
        *_alike(cases, likeness),
        *_conflicts(cases, likeness, outlines),
        *_masks(cases, masks),
        *_images(cases, masks),
        *_description(spec, cases),
    )


def _exact(cases: Sequence[CaseFingerprint], masks: Sequence[SeenMask]) -> Iterable[Finding]:
    label_hashes = {case.case: mask.label_hash for case, mask in zip(cases, masks, strict=True)}
    same: dict[str, list[CaseFingerprint]] = defaultdict(list)
    for case in cases:
        same[case.pixel_hash].append(case)
    for group in same.values():
        names = tuple(case.case for case in group)
        if len(group) > 1:
            what = "the same file" if len({case.file_hash for case in group}) == 1 else "the same pixels in different files"
            yield Finding("exact_duplicate", f"{len(group)} cases hold {what}{_patients(group)}", names)
            if len({label_hashes[name] for name in names}) > 1:
                yield Finding("conflicting_masks", "the same image has different masks", names)


def _alike(cases: Sequence[CaseFingerprint], likeness: Likeness) -> Iterable[Finding]:
    kinds = (
        ("near_duplicate", likeness.same, "show the same picture, or nearly: copies, or frames of one recording"),
        ("similar", likeness.scene, "look much more alike than is usual here: perhaps one patient, to be named in groups"),
    )
    for kind, pairs, text in kinds:
        for group in groups(pairs):
            members = [cases[place] for place in group]
            if members[0].group and len({case.group for case in members}) == 1:
                continue  # Frames of one patient are expected to look alike, and are kept together anyway.
            yield Finding(kind, f"{len(members)} cases {text}{_patients(members)}", tuple(case.case for case in members))


def _conflicts(cases: Sequence[CaseFingerprint], likeness: Likeness, outlines: RowFile) -> Iterable[Finding]:
    """Pictures that are nearly the same, not to the pixel, with masks that are not."""
    found = 0
    for pair in likeness.same:
        first, second = outlines[list(pair)].astype(np.float64)
        whole = float(first.sum() + second.sum())
        dice = 2 * float(np.minimum(first, second).sum()) / whole if whole else 1.0
        found += dice < _AGREE
        if dice < _AGREE and found <= _LISTED:
            names = (cases[pair[0]].case, cases[pair[1]].case)
            yield Finding("conflicting_masks", f"nearly the same image has masks that agree little (Dice {dice:.2f})", names)
    if found > _LISTED:
        text = f"{found - _LISTED} more pairs of nearly the same image have masks that agree little"
        yield Finding("conflicting_masks", text, ())


def _patients(members: Sequence[CaseFingerprint]) -> str:
    known = sorted({case.group for case in members if case.group})
    return f"; they belong to different groups: {', '.join(known)}" if len(known) > 1 else ""


def _masks(cases: Sequence[CaseFingerprint], masks: Sequence[SeenMask]) -> Iterable[Finding]:
    specks = {case.case: mask.specks for case, mask in zip(cases, masks, strict=True)}
    stray = tuple(case.case for case, mask in zip(cases, masks, strict=True) if mask.astray > _ASTRAY)
    if stray:
        text = f"{len(stray)} masks mark a constant border or a single value: shifted, or of another image?"
        yield Finding("mask_on_nothing", text, stray)
    empty = tuple(case.case for case in cases if not any(item.pixels for item in case.classes.values()))
    if empty:
        yield Finding("empty_mask", f"{len(empty)} of {len(cases)} masks mark nothing", empty)
    for name in cases[0].classes:
        held = [(case, case.classes[name]) for case in cases if case.classes[name].pixels]
        if not held:
            yield Finding("absent_class", f"no mask holds {name!r}: it cannot be learned", ())
        tiny = tuple(case.case for case, item in held if item.largest < _TINY_SHARE * case.size[0] * case.size[1])
        if tiny:
            yield Finding(
                "tiny_objects", f"{len(tiny)} cases hold {name!r} only in objects below {_TINY_SHARE:.2%} of the image", tiny
            )
    dotted = tuple(case.case for case in cases if specks.get(case.case))
    if dotted:
        total = sum(specks[name] for name in dotted)
        yield Finding(
            "specks", f"{len(dotted)} masks hold {total} objects of at most {SPECK} pixels: slips of the pen?", dotted
        )


def _images(cases: Sequence[CaseFingerprint], masks: Sequence[SeenMask]) -> Iterable[Finding]:
    grays = [mask.gray for mask in masks]
    drawn = tuple(case.case for case in cases if case.overlay > _DRAWN_OVER)
    if drawn:
        most = max(case.overlay for case in cases)
        text = f"{len(drawn)} images seem to hold text or markers ({most:.2%} of the pixels at most): may they tell the class?"
        yield Finding("overlay", text, drawn)
    for note in sorted({note for case in cases for note in case.notes}):
        yield Finding("read_as", f"reading changed the stored form: {note}", tuple(c.case for c in cases if note in c.notes))
    span = max(case.high for case in cases) - min(case.low for case in cases)
    blank = tuple(case.case for case in cases if case.high - case.low <= _BLANK * span)
    if blank:
        yield Finding("blank_image", f"{len(blank)} images hold one value (or nearly)", blank)
    if any(grays) and not all(grays):
        odd = tuple(case.case for case, gray in zip(cases, grays, strict=True) if gray)
        yield Finding(
            "mixed_gray", f"{len(odd)} of {len(cases)} images are gray stored as colours, the others have colours", odd
        )
    kinds = defaultdict(list)
    for case in cases:
        kinds[case.dtype].append(case.case)
    if len(kinds) > 1:
        rare = min(kinds.values(), key=len)
        counts = ", ".join(f"{kind} ({len(names)})" for kind, names in sorted(kinds.items()))
        yield Finding("mixed_dtype", f"images are stored as {counts}: do their values mean the same?", tuple(rare))
    bare = tuple(case.case for case in cases if case.spacing is None)
    if bare and len(bare) < len(cases):
        yield Finding("missing_spacing", f"{len(bare)} images have no spacing, the others do: spacing is not used", bare)


def _description(spec: DatasetSpec, cases: Sequence[CaseFingerprint]) -> Iterable[Finding]:
    if spec.numTraining and spec.numTraining != len(cases):
        yield Finding("case_count", f"dataset.json speaks of {spec.numTraining} training cases, there are {len(cases)}", ())
    lone = tuple(case.case for case in cases if not case.group)
    if spec.groups and lone:
        yield Finding("missing_group", f"{len(lone)} cases have no group; each is taken as a patient of its own", lone)
