"""Folds by the content of the images: everybody with the same images gets the same folds, whatever the files are called.

The rule, which needs nothing but the images:
1. Cases of one patient, equal images and near duplicates are one group.
2. The key of an image is the SHA-256 of the text "autoseg <seed> <pixel hash>" (see `autoseg.fingerprint.pixel_hash`); that of
   a group is the smallest of its images'.
3. Groups in the order of their keys are laid end to end and cut into equal parts; a group belongs to the part that holds its
   middle. Part k is validated in fold k.
4. The inner cases are the first groups in the order of the keys of "autoseg <seed> inner <pixel hash>" among a fold's training
   groups, until they hold an eighth of its cases.

Masks decide nothing, since they are read in several ways (merged classes, thresholds). An image more or less moves only
a few cases near the cuts.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from autoseg.planning.split_file import INNER as INNER_SIDE
from autoseg.planning.split_file import TRAINED, split_rows
from autoseg.planning.splits import INNER, check_independent, describe_folds, independent_groups
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Fold, Splits

logger = logging.getLogger(__name__)

CANONICAL = "canonical"


def make_canonical_splits(fingerprint: Fingerprint, spec: DatasetSpec, folds: int = 5, seed: int = 0) -> Splits:
    """`folds` folds by the rule above, or as many as there are groups. Raises AutosegError if all cases are one group.

    fingerprint: with current hashes (`Fingerprint.hash_version`).
    """
    groups = independent_groups(fingerprint, spec.groups)
    members: dict[str, list[str]] = {}
    for case, group in groups.items():
        members.setdefault(group, []).append(case)
    k = check_independent(fingerprint, len(members), folds)
    hashes = {case.case: case.pixel_hash for case in fingerprint.cases}
    ordered = _in_order(members, hashes, f"autoseg {seed}")
    inner_order = _in_order(members, hashes, f"autoseg {seed} inner")
    part_of = _parts([len(members[group]) for group in ordered], k)
    parts = [{group for group, number in zip(ordered, part_of, strict=True) if number == part} for part in range(k)]
    fold_list = []
    for validated in parts:
        trained = [group for group in inner_order if group not in validated]
        inner = _inner(trained, members)
        fold_list.append(Fold(_cases(members, trained), _cases(members, validated), _cases(members, inner)))
    reason = f"canonical rule, seed {seed}: {describe_folds(fingerprint, spec, groups, fold_list, folds, stratified=False)}"
    return Splits(folds=tuple(fold_list), reason=reason, seed=seed, given=CANONICAL)


def _in_order(members: Mapping[str, Sequence[str]], hashes: Mapping[str, str], prefix: str) -> list[str]:
    """Groups by the smallest key of their images."""
    keys = {
        group: min(hashlib.sha256(f"{prefix} {hashes[case]}".encode()).hexdigest() for case in cases)
        for group, cases in members.items()
    }
    return sorted(members, key=lambda group: keys[group])


def _parts(sizes: Sequence[int], k: int) -> list[int]:
    """The part, 0 to k - 1, of each group of these sizes; no part is empty."""
    total, before, parts = sum(sizes), 0, []
    for size in sizes:
        # In whole numbers: the middle of the group, times two.
        parts.append(k * (2 * before + size) // (2 * total))
        before += size
    if set(parts) != set(range(k)):  # A group is larger than a part.
        return [k * place // len(sizes) for place in range(len(sizes))]
    return parts


def _inner(trained: Sequence[str], members: Mapping[str, Sequence[str]]) -> list[str]:
    """The first groups that hold an eighth of the cases; none if no others were left to train on."""
    wanted = sum(len(members[group]) for group in trained) / INNER
    chosen: list[str] = []
    held = 0
    for group in trained:
        if held >= wanted:
            return chosen
        chosen.append(group)
        held += len(members[group])
    return []


def _cases(members: Mapping[str, Sequence[str]], groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(case for group in groups for case in members[group]))


def without(splits: Splits, left_out: Collection[str]) -> Splits:
    """The folds without these duplicates, of which another copy stays."""
    if not left_out:
        return splits
    gone = set(left_out)
    folds = tuple(
        Fold(*(tuple(case for case in side if case not in gone) for side in (fold.train, fold.validation, fold.inner)))
        for fold in splits.folds
    )
    return replace(splits, folds=folds, reason=f"{splits.reason}; {len(gone)} duplicates are in no fold")


def subset(splits: Splits, fingerprint: Fingerprint, spec: DatasetSpec, cases: int) -> Splits:
    """The folds with about `cases` of their cases, the same for everybody with the same images; groups stay whole.

    Of each set of cases with the same role in every fold the first groups are kept, in the order of the keys of
    "autoseg 0 subset <pixel hash>", so that no side becomes empty.
    """
    used = {case for fold in splits.folds for case in (*fold.train, *fold.validation)}
    if len(used) <= cases:
        return splits
    roles = {row.name: row.sides.replace(INNER_SIDE, TRAINED) for row in split_rows(splits, fingerprint)}
    groups = independent_groups(fingerprint, spec.groups)
    members: dict[str, dict[str, list[str]]] = {}
    for case in sorted(used):
        members.setdefault(roles[case], {}).setdefault(groups[case], []).append(case)
    hashes = {case.case: case.pixel_hash for case in fingerprint.cases}
    kept: set[str] = set()
    for of_role in members.values():
        wanted, held = cases * sum(map(len, of_role.values())) / len(used), 0
        for group in _in_order(of_role, hashes, "autoseg 0 subset"):
            if held and held + len(of_role[group]) / 2 > wanted:
                break
            kept |= set(of_role[group])
            held += len(of_role[group])
    folds = tuple(
        Fold(*(tuple(case for case in side if case in kept) for side in (fold.train, fold.validation, fold.inner)))
        for fold in splits.folds
    )
    return replace(splits, folds=folds, reason=f"{len(kept)} cases of: {splits.reason}")
