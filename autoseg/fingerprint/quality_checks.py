"""Quality checks: findings that a person should look at. None of them is an error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from autoseg.fingerprint.case import MaskSummary
from autoseg.fingerprint.near_duplicates import SimilarPairs, connected_groups
from autoseg.fingerprint.objects import SPECK
from autoseg.fingerprint.row_file import RowFile
from autoseg.schema.dataset import NO_NORMALISATION, DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint, Finding

_TINY_SHARE = 1e-4  # of the image: 7 pixels of 256 x 256
_BLANK = 0.01
_SHORTEST_SIDE = 8  # pixels
# Names of channels that select another normalisation in nnU-Net, and are only names here.
_NORMALISATIONS = (NO_NORMALISATION, "rescale_to_0_1", "rgb_to_0_1", "zscore")
_MAX_OVERLAY = 5e-4  # of the image: 33 pixels of 256 x 256, a few letters
_MAX_OUTSIDE_CONTENT = 0.5  # of the foreground
_MIN_MASK_DICE = 0.5  # Dice: masks of the same image that overlap less contradict each other
_MAX_LISTED = 1000  # contradicting pairs that are listed; further pairs are only counted


def check_quality(
    spec: DatasetSpec,
    cases: Sequence[CaseFingerprint],
    similar_pairs: SimilarPairs,
    masks: Sequence[MaskSummary],
    mask_thumbnails: RowFile,
) -> tuple[Finding, ...]:
    """All findings, duplicates first. masks, mask_thumbnails (flattened rows): one for each case.

    likeness: without pairs of equal pixels.
    """
    return (
        *_check_exact_duplicates(cases, masks),
        *_check_similar_images(cases, similar_pairs),
        *_check_conflicting_masks(cases, similar_pairs, mask_thumbnails),
        *_check_masks(cases, masks),
        *_check_images(cases, masks),
        *_check_description(spec, cases),
    )


def _check_exact_duplicates(cases: Sequence[CaseFingerprint], masks: Sequence[MaskSummary]) -> Iterable[Finding]:
    label_hashes = {case.case: mask.label_hash for case, mask in zip(cases, masks, strict=True)}
    same: dict[str, list[CaseFingerprint]] = defaultdict(list)
    for case in cases:
        same[case.pixel_hash].append(case)
    for group in same.values():
        names = tuple(case.case for case in group)
        if len(group) > 1:
            what = "the same file" if len({case.file_hash for case in group}) == 1 else "the same pixels in different files"
            yield Finding("exact_duplicate", f"{len(group)} cases have {what}{_group_note(group)}", names)
            if len({label_hashes[name] for name in names}) > 1:
                yield Finding("conflicting_masks", "the same image has different masks", names)


def _check_similar_images(cases: Sequence[CaseFingerprint], similar_pairs: SimilarPairs) -> Iterable[Finding]:
    kinds = (
        ("near_duplicate", similar_pairs.same, "show almost the same image: copies, or frames of one recording"),
        (
            "similar",
            similar_pairs.scene,
            "are much more similar than usual in this dataset: perhaps one patient? Then add them to groups in dataset.json",
        ),
    )
    for kind, pairs, text in kinds:
        for group in connected_groups(pairs):
            members = [cases[place] for place in group]
            if members[0].group and len({case.group for case in members}) == 1:
                continue  # Frames of one patient are expected to look alike, and the splits keep them together.
            yield Finding(kind, f"{len(members)} cases {text}{_group_note(members)}", tuple(case.case for case in members))


def _check_conflicting_masks(
    cases: Sequence[CaseFingerprint], similar_pairs: SimilarPairs, mask_thumbnails: RowFile
) -> Iterable[Finding]:
    """Near-duplicate images whose masks differ."""
    conflicts = 0
    for pair in similar_pairs.same:
        first, second = mask_thumbnails[list(pair)].astype(np.float64)
        total = float(first.sum() + second.sum())
        dice = 2 * float(np.minimum(first, second).sum()) / total if total else 1.0
        conflicts += dice < _MIN_MASK_DICE
        if dice < _MIN_MASK_DICE and conflicts <= _MAX_LISTED:
            names = (cases[pair[0]].case, cases[pair[1]].case)
            yield Finding("conflicting_masks", f"near-duplicate images have different masks (Dice {dice:.2f})", names)
    if conflicts > _MAX_LISTED:
        text = f"{conflicts - _MAX_LISTED} more pairs of near-duplicate images have different masks"
        yield Finding("conflicting_masks", text, ())


def _group_note(members: Sequence[CaseFingerprint]) -> str:
    groups_named = sorted({case.group for case in members if case.group})
    return f"; they belong to different groups: {', '.join(groups_named)}" if len(groups_named) > 1 else ""


def _check_masks(cases: Sequence[CaseFingerprint], masks: Sequence[MaskSummary]) -> Iterable[Finding]:
    specks = {case.case: mask.specks for case, mask in zip(cases, masks, strict=True)}
    outside = tuple(
        case.case for case, mask in zip(cases, masks, strict=True) if mask.fraction_outside_content > _MAX_OUTSIDE_CONTENT
    )
    if outside:
        text = f"{len(outside)} masks mark a constant border or a constant area: shifted, or of another image?"
        yield Finding("mask_on_nothing", text, outside)
    empty = tuple(case.case for case in cases if not any(item.pixels for item in case.classes.values()))
    if empty:
        yield Finding("empty_mask", f"{len(empty)} of {len(cases)} masks are empty", empty)
    for name in cases[0].classes:
        present = [(case, case.classes[name]) for case in cases if case.classes[name].pixels]
        if not present:
            yield Finding("absent_class", f"no mask contains {name!r}: no model can learn it", ())
        tiny = tuple(case.case for case, item in present if item.largest < _TINY_SHARE * case.size[0] * case.size[1])
        if tiny:
            yield Finding(
                "tiny_objects", f"{len(tiny)} cases have only objects of {name!r} below {_TINY_SHARE:.2%} of the image", tiny
            )
    with_specks = tuple(case.case for case in cases if specks.get(case.case))
    if with_specks:
        total = sum(specks[name] for name in with_specks)
        yield Finding(
            "specks", f"{len(with_specks)} masks have {total} objects of at most {SPECK} pixels: drawing errors?", with_specks
        )


def _check_images(cases: Sequence[CaseFingerprint], masks: Sequence[MaskSummary]) -> Iterable[Finding]:
    grays = [mask.gray for mask in masks]
    with_overlay = tuple(case.case for case in cases if case.overlay > _MAX_OVERLAY)
    if with_overlay:
        largest = max(case.overlay for case in cases)
        text = (
            f"{len(with_overlay)} images seem to contain text or markers (at most {largest:.2%} of the pixels): "
            "could a model learn the class from them?"
        )
        yield Finding("overlay", text, with_overlay)
    for note in sorted({note for case in cases for note in case.notes}):
        yield Finding("read_as", f"reading changed the values: {note}", tuple(c.case for c in cases if note in c.notes))
    span = max(case.high for case in cases) - min(case.low for case in cases)
    blank = tuple(case.case for case in cases if case.high - case.low <= _BLANK * span)
    if blank:
        yield Finding("blank_image", f"{len(blank)} images are constant, or almost", blank)
    small = tuple(case.case for case in cases if min(case.size) < _SHORTEST_SIDE)
    if small:
        yield Finding("tiny_image", f"{len(small)} images have a side of less than {_SHORTEST_SIDE} pixels", small)
    if any(grays) and not all(grays):
        gray_cases = tuple(case.case for case, gray in zip(cases, grays, strict=True) if gray)
        yield Finding(
            "mixed_gray",
            f"{len(gray_cases)} of {len(cases)} images are gray images stored as RGB, the others have colours",
            gray_cases,
        )
    kinds = defaultdict(list)
    for case in cases:
        kinds[case.dtype].append(case.case)
    if len(kinds) > 1:
        rarest = min(kinds.values(), key=len)
        counts = ", ".join(f"{kind} ({len(names)})" for kind, names in sorted(kinds.items()))
        yield Finding("mixed_dtype", f"images are stored as {counts}: do their values have the same meaning?", tuple(rarest))
    without_spacing = tuple(case.case for case in cases if case.spacing is None)
    if without_spacing and len(without_spacing) < len(cases):
        yield Finding(
            "missing_spacing",
            f"{len(without_spacing)} images have no spacing, the others do: spacing is ignored",
            without_spacing,
        )


def _check_description(spec: DatasetSpec, cases: Sequence[CaseFingerprint]) -> Iterable[Finding]:
    channels = [name.casefold() for name in spec.channel_names.values()]
    ignored = [name for name in spec.channel_names.values() if name.casefold() in _NORMALISATIONS]
    if ignored and set(channels) != {NO_NORMALISATION}:
        text = f"the channel names {', '.join(ignored)} ask nnU-Net for a normalisation; autoseg decides by the values"
        yield Finding("channel_name", f"{text}, and honours noNorm if all channels are named so", ())
    if spec.numTraining and spec.numTraining != len(cases):
        yield Finding("case_count", f"dataset.json says {spec.numTraining} training cases, there are {len(cases)}", ())
    without_group = tuple(case.case for case in cases if not case.group)
    if spec.groups and without_group:
        yield Finding(
            "missing_group", f"{len(without_group)} cases have no group; each counts as a separate patient", without_group
        )
