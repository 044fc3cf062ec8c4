"""Folds for cross-validation: what belongs to one patient or shows one picture is never on both sides of a split."""

from __future__ import annotations

import difflib
import json
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoseg.fingerprint.near_duplicates import connected_groups
from autoseg.schema import serde
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint, Fingerprint
from autoseg.schema.plan import Decision, Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems

logger = logging.getLogger(__name__)

# Cases are told apart by foreground size in as many equal groups.
_SIZE_BINS = 3


def make_splits(fingerprint: Fingerprint, spec: DatasetSpec, folds: int = 5, seed: int = 0) -> Splits:
    """`folds` folds: whole patients and whole duplicate clusters on one side, strata spread evenly.

    A stratum is which classes a case holds and how large its foreground is. With fewer groups than folds there are as
    many folds as groups, and a warning. Raises AutosegError where everything belongs to one group.
    """
    cases = fingerprint.cases
    groups = _groups(fingerprint, spec.groups)
    count = len(set(groups.values()))
    if count < 2:
        what = "case" if len(cases) < 2 else f"group ({len(cases)} cases of one patient, or showing one picture)"
        raise AutosegError(
            f"{fingerprint.dataset} holds only one {what}: nothing would be left to validate on",
            "add data of other patients, or correct `groups` in dataset.json",
        )
    if folds < 2:
        raise AutosegError(f"{folds} folds cannot be made", "ask for at least 2")
    k = min(folds, count)
    if k < folds:
        logger.warning(f"{fingerprint.dataset} has only {count} independent groups of cases: {k} folds instead of {folds}")
    strata = _strata(cases, k)
    names = np.array([case.case for case in cases])
    parts = _assign_folds(strata, [groups[name] for name in names], k, seed)
    made = tuple(Fold(_sorted(names[parts != part]), _sorted(names[parts == part])) for part in range(k))
    return Splits(made, _because(fingerprint, spec, groups, made, folds), seed)


def decide_folds(fingerprint: Fingerprint, spec: DatasetSpec, wanted: int) -> Decision:
    """How many folds are asked of `make_splits`, and how many it can make."""
    count = len(set(_groups(fingerprint, spec.groups).values()))
    because = "as in the studies this compares with"
    if count < wanted:
        because = f"{because}; there are only {count} independent groups of cases, so {count} are made"
    found = f"{count} independent groups: {len(fingerprint.cases)} cases, {len(fingerprint.duplicates)} clusters of duplicates"
    return Decision("training.folds", str(wanted), because, found)


def read_splits(path: Path, fingerprint: Fingerprint, spec: DatasetSpec) -> Splits:
    """Splits a person made: our splits.json, or nnU-Net's list of {"train": [...], "val": [...]}; checked for leaks.

    Raises AutosegError or SeveralProblems.
    """
    remedy = 'give a splits.json of autoseg, or a list of {"train": [...], "val": [...]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, list):
            made = tuple(Fold(tuple(fold["train"]), tuple(fold["val"])) for fold in content)
            splits = Splits(made, f"given by the user: {path.name}")
        else:
            splits = serde.from_content(content, Splits)
    except FileNotFoundError as error:
        raise AutosegError(f"there is no splits file {path}", remedy) from error
    except serde.NewerVersionError as error:
        raise AutosegError(f"{path}: {error}", "update autoseg") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, serde.SchemaError) as error:
        raise AutosegError(f"{path} is no splits file: {error}", remedy) from error
    check_splits(splits, fingerprint, spec)
    return splits


def check_splits(splits: Splits, fingerprint: Fingerprint, spec: DatasetSpec | None = None) -> None:
    """Raise SeveralProblems for unknown cases, empty sides, and cases, patients or duplicates on both sides of a fold."""
    known = {case.case for case in fingerprint.cases}
    groups = _groups(fingerprint, spec.groups if spec is not None else {})
    problems = [] if splits.folds else ["there are no folds"]
    for number, fold in enumerate(splits.folds):
        for side, members in (("train", fold.train), ("validation", fold.validation)):
            where = f"fold {number}, {side}"
            problems += [f"{where}: no case {name!r}{_near(name, known)}" for name in members if name not in known]
            if not members:
                problems.append(f"{where}: no cases")
        both = set(fold.train) & set(fold.validation)
        problems += [f"fold {number}: {name} is in train and in validation" for name in sorted(both)]
        trained = defaultdict(list)
        for name in fold.train:
            trained[groups.get(name, name)].append(name)
        for name in fold.validation:
            twins = [twin for twin in trained.get(groups.get(name, name), ()) if twin != name]
            if twins and name in known:
                problems.append(
                    f"fold {number}: {name} (validation) and {twins[0]} (train) are of one patient or show one picture"
                )
    if problems:
        raise SeveralProblems("these splits would give scores that mean nothing:", problems, "correct the splits file")


def _assign_folds(strata: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold number, 0 to `folds` - 1, of each case: groups stay whole, strata are spread evenly (scikit-learn's greedy rule)."""
    # A second of import, which commands without planning should not pay.
    from sklearn.model_selection import StratifiedGroupKFold

    names, group = np.unique(groups, return_inverse=True)
    # scikit-learn's own shuffle draws different folds in different versions.
    order = np.random.RandomState(seed).permutation(len(names))
    shuffled = np.argsort(order)[group]
    assigned = np.empty(len(group), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a stratum has fewer cases than folds
        for fold, (_, inside) in enumerate(StratifiedGroupKFold(folds).split(group, strata, shuffled)):
            assigned[inside] = fold
    return assigned


def _groups(fingerprint: Fingerprint, declared: Mapping[str, str]) -> dict[str, str]:
    """Case -> group: patients joined by duplicates they share."""
    own = {}
    for case in fingerprint.cases:
        patient = case.group or declared.get(case.case, "")
        own[case.case] = f"patient {patient}" if patient else f"case {case.case}"
    alike = [(own[cluster[0]], own[other]) for cluster in fingerprint.duplicates for other in cluster[1:]]
    joined = {group: connected[0] for connected in connected_groups(alike) for group in connected}
    return {case: joined.get(group, group) for case, group in own.items()}


def _strata(cases: Sequence[CaseFingerprint], folds: int) -> list[str]:
    """A stratum for each case; one with fewer members than folds gives up its size, then its classes."""
    present = ["+".join(sorted(name for name, found in case.classes.items() if found.pixels > 0)) for case in cases]
    shares = [sum(found.pixels for found in case.classes.values()) / (case.size[0] * case.size[1]) for case in cases]
    filled = [share for share in shares if share > 0]
    edges = np.quantile(filled, np.linspace(0, 1, _SIZE_BINS + 1)[1:-1]) if filled else np.array([])
    sized = [f"{classes}/{int(np.searchsorted(edges, share))}" for classes, share in zip(present, shares, strict=True)]
    for coarser in (present, ["other"] * len(cases)):
        members = Counter(sized)
        sized = [own if members[own] >= folds else other for own, other in zip(sized, coarser, strict=True)]
    return sized if max(Counter(sized).values()) >= folds else ["all"] * len(cases)


def _because(
    fingerprint: Fingerprint, spec: DatasetSpec, groups: Mapping[str, str], folds: Sequence[Fold], wanted: int
) -> str:
    patients = len({case.group or spec.groups.get(case.case, "") for case in fingerprint.cases} - {""})
    parts = [f"{len(folds)} folds over {len(fingerprint.cases)} cases"]
    parts.append(f"{patients} patients kept whole" if patients else "no patients are known, so each case counts as one")
    if fingerprint.duplicates:
        held = sum(len(cluster) for cluster in fingerprint.duplicates)
        parts.append(f"{held} cases in {len(fingerprint.duplicates)} clusters of equal pictures kept together")
    parts.append("stratified by the classes a case holds and by foreground size")
    if len(folds) < wanted:
        parts.append(f"{wanted} were asked for, but there are only {len(set(groups.values()))} independent groups")
    holders = {
        name: {case.case for case in fingerprint.cases if name in case.classes and case.classes[name].pixels > 0}
        for name in sorted({name for case in fingerprint.cases for name in case.classes})
    }
    for name, held_by in holders.items():
        without = [str(n) for n, fold in enumerate(folds) if not held_by & set(fold.validation)]
        if held_by and without:
            parts.append(f"{name} ({len(held_by)} cases) is missing in the validation of fold {', '.join(without)}")
    return "; ".join(parts)


def _sorted(names: np.ndarray[tuple[int], np.dtype[np.str_]]) -> tuple[str, ...]:
    return tuple(sorted(str(name) for name in names))


def _near(name: str, known: set[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
