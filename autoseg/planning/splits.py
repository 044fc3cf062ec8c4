"""Folds for cross-validation. Cases of one patient, and duplicates, are never on both sides of a split."""

from __future__ import annotations

import difflib
import json
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoseg.fingerprint.name_groups import suggest_groups, suggestion_text
from autoseg.fingerprint.near_duplicates import connected_groups
from autoseg.schema import serde
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint, Fingerprint
from autoseg.schema.plan import Decision, Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.random_state import python_random_state_kept

logger = logging.getLogger(__name__)

_GIVEN = "given by the user: "
# One in so many training cases is an inner one.
INNER = 8

# Number of strata by foreground size.
_SIZE_BINS = 3


def make_splits(
    fingerprint: Fingerprint, spec: DatasetSpec, folds: int = 5, seed: int = 0, left_out: Collection[str] = ()
) -> Splits:
    """`folds` folds. Patients and clusters of duplicates stay together; strata are spread evenly. left_out: cases in no fold.

    A stratum is the set of classes of a case and the size of its foreground. With fewer groups than folds, there are only
    as many folds as groups, and a warning. Raises AutosegError if all cases belong to one group.
    """
    cases = [case for case in fingerprint.cases if case.case not in set(left_out)]
    groups = independent_groups(fingerprint, spec.groups)
    k = check_independent(fingerprint, len({groups[case.case] for case in cases}), folds)
    strata = _strata(cases, k)
    names = np.array([case.case for case in cases])
    parts = _assign_folds(strata, [groups[name] for name in names], k, seed)
    fold_list = tuple(Fold(_sorted(names[parts != part]), _sorted(names[parts == part])) for part in range(k))
    reason = describe_folds(fingerprint, spec, groups, fold_list, folds)
    if left_out:
        reason += f"; {len(left_out)} duplicates are in no fold"
    splits = Splits(folds=fold_list, reason=reason, seed=seed)
    return with_inner_cases(splits, fingerprint, spec)


def check_independent(fingerprint: Fingerprint, groups: int, folds: int) -> int:
    """The number of folds that can be made of so many groups; a warning if it is smaller. Raises AutosegError for one group."""
    if groups < 2:
        cases = len(fingerprint.cases)
        which = "case" if cases < 2 else f"group ({cases} cases of one patient, or showing one picture)"
        raise AutosegError(
            f"{fingerprint.dataset} has only one {which}: no case would be left for validation",
            "add data of other patients, or correct `groups` in dataset.json",
        )
    if folds < 2:
        raise AutosegError(f"{folds} folds cannot be made", "use at least 2")
    if groups < folds:
        logger.warning(
            f"{fingerprint.dataset} has only {groups} independent groups of cases: {groups} folds instead of {folds}"
        )
    return min(folds, groups)


def with_inner_cases(splits: Splits, fingerprint: Fingerprint, spec: DatasetSpec) -> Splits:
    """The splits with an eighth of each fold's training cases as inner ones, made like the folds; existing ones stay.

    A fold whose training cases are all of one patient gets none.
    """
    groups = independent_groups(fingerprint, spec.groups)

    def completed(fold: Fold) -> Fold:
        count = len({groups[name] for name in fold.train})
        if fold.inner or count < 2:
            return fold
        k = min(INNER, count)
        return replace(fold, inner=even_parts(fingerprint, spec, fold.train, k, splits.seed)[0])

    return replace(splits, folds=tuple(completed(fold) for fold in splits.folds))


def even_parts(
    fingerprint: Fingerprint, spec: DatasetSpec, names: Sequence[str], parts: int, seed: int
) -> list[tuple[str, ...]]:
    """So many disjoint parts of these cases, made like the folds. Some are empty if there are fewer groups."""
    groups, cases = independent_groups(fingerprint, spec.groups), {case.case: case for case in fingerprint.cases}
    assigned = _assign_folds(_strata([cases[name] for name in names], parts), [groups[name] for name in names], parts, seed)
    return [_sorted(np.array(names)[assigned == part]) for part in range(parts)]


def with_groups(splits: Splits, fingerprint: Fingerprint, spec: DatasetSpec) -> Splits:
    """The splits with the groups that a fold never divides, for all that is judged on held-out cases later."""
    groups = independent_groups(fingerprint, spec.groups)
    members = Counter(groups.values())
    return replace(splits, groups={case: group for case, group in groups.items() if members[group] > 1})


def decide_folds(fingerprint: Fingerprint, spec: DatasetSpec, requested: int) -> Decision:
    """The requested number of folds, and the number that `make_splits` can make."""
    count = len(set(independent_groups(fingerprint, spec.groups).values()))
    reason = "as in the studies this compares with"
    if count < requested:
        reason = f"{reason}; there are only {count} independent groups of cases, so {count} are made"
    clusters = len(fingerprint.duplicates)
    evidence = f"{count} independent groups: {len(fingerprint.cases)} cases, {clusters} clusters of duplicates"
    return Decision("training.folds", str(requested), reason, evidence)


def decide_groups(fingerprint: Fingerprint, spec: DatasetSpec) -> list[Decision]:
    """A warning if the names of the cases hold patients, until the user confirms or denies it; else nothing."""
    if spec.independent_cases or spec.groups or any(case.group for case in fingerprint.cases):
        return []
    suggested = suggest_groups([case.case for case in fingerprint.cases])
    if suggested is None:
        return []
    text = suggestion_text(suggested, fingerprint.dataset.partition("_")[2])
    logger.warning(text)
    return [Decision("groups", "not confirmed", f"warning: {text}", f"{len(fingerprint.cases)} cases")]


def read_splits(path: Path, fingerprint: Fingerprint, spec: DatasetSpec) -> Splits:
    """Splits from a file: autoseg's splits.json or nnU-Net's list of {"train": [...], "val": [...]}; checked for leaks.

    Raises AutosegError or SeveralProblems.
    """
    remedy = 'give a splits.json of autoseg, or a list of {"train": [...], "val": [...]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, list):
            fold_list = tuple(Fold(tuple(fold["train"]), tuple(fold["val"])) for fold in content)
            splits = Splits(folds=fold_list, reason=f"{_GIVEN}{path.name}")
        else:
            # The publisher's leaks are excused only where the published names decide: by --splits official.
            splits = replace(serde.from_content(content, Splits), official="")
    except FileNotFoundError as error:
        raise AutosegError(f"there is no splits file {path}", remedy) from error
    except serde.NewerVersionError as error:
        raise AutosegError(f"{path}: {error}", "update autoseg") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, serde.SchemaError) as error:
        raise AutosegError(f"{path} is no splits file: {error}", remedy) from error
    check_splits(splits, fingerprint, spec, f"correct {path}")
    return splits


def given_file(splits: Splits) -> str:
    """Name of the user's file; "" for splits of autoseg."""
    return splits.given or splits.reason.partition(_GIVEN)[2]


def decide_given_folds(splits: Splits) -> Decision:
    """The decision for splits of the user."""
    return Decision("training.folds", str(len(splits.folds)), f"{_GIVEN}{given_file(splits)}")


def check_splits(
    splits: Splits, fingerprint: Fingerprint, spec: DatasetSpec | None = None, remedy: str = "correct the splits"
) -> None:
    """Raises SeveralProblems for unknown cases, empty sides, cases listed twice, and cases, patients or duplicates on both
    sides of a fold; those of an official split are its publisher's, and its reason names them."""
    known = {case.case for case in fingerprint.cases}
    groups = independent_groups(fingerprint, spec.groups if spec is not None else {})
    problems = [] if splits.folds else ["there are no folds"]
    for number, fold in enumerate(splits.folds):
        for side, members in (("train", fold.train), ("validation", fold.validation)):
            where = f"fold {number}, {side}"
            problems += [f"{where}: no case {name!r}{_suggestion(name, known)}" for name in members if name not in known]
            twice = sorted(name for name, times in Counter(members).items() if times > 1)
            problems += [f"{where}: {name} is listed twice" for name in twice]
            if not members:
                problems.append(f"{where}: no cases")
        problems += [f"fold {number}, inner: {name} is not in train" for name in fold.inner if name not in fold.train]
        problems += [] if splits.official else _inner_leaks(number, fold, groups)
        both = set(fold.train) & set(fold.validation)
        problems += [f"fold {number}: {name} is in train and in validation" for name in sorted(both)]
        train_by_group = defaultdict(list)
        for name in fold.train:
            train_by_group[groups.get(name, name)].append(name)
        for name in fold.validation:
            leaks = [leak for leak in train_by_group.get(groups.get(name, name), ()) if leak != name]
            if leaks and name in known and not splits.official:
                problems.append(
                    f"fold {number}: {name} (validation) and {leaks[0]} (train) are of one patient or show one picture"
                )
    if problems:
        raise SeveralProblems("these splits would give meaningless scores:", problems, remedy)


def _inner_leaks(number: int, fold: Fold, groups: Mapping[str, str]) -> list[str]:
    inner = {groups.get(name, name) for name in fold.inner}
    others = [name for name in fold.train if name not in fold.inner]
    if fold.inner and not others:
        return [f"fold {number}, inner: all training cases, so none are left to train on"]
    return [
        f"fold {number}: {name} (train) and an inner case are of one patient or show one picture"
        for name in others
        if groups.get(name, name) in inner
    ]


def _assign_folds(strata: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold number, 0 to `folds` - 1, of each case: groups stay whole, strata are spread evenly (scikit-learn's greedy rule)."""
    with python_random_state_kept():
        # Imported here, because it takes a second.
        from sklearn.model_selection import StratifiedGroupKFold

    names, group = np.unique(groups, return_inverse=True)
    # scikit-learn's own shuffle draws different folds in different versions.
    order = np.random.RandomState(seed).permutation(len(names))
    shuffled = np.argsort(order)[group]
    assigned = np.empty(len(group), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a stratum has fewer cases than folds
        for fold, (_, indices) in enumerate(StratifiedGroupKFold(folds).split(group, strata, shuffled)):
            assigned[indices] = fold
    return assigned


def independent_groups(fingerprint: Fingerprint, declared: Mapping[str, str]) -> dict[str, str]:
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
    classes_present = ["+".join(sorted(name for name, one in case.classes.items() if one.pixels > 0)) for case in cases]
    fractions = [sum(one.pixels for one in case.classes.values()) / (case.size[0] * case.size[1]) for case in cases]
    filled = [fraction for fraction in fractions if fraction > 0]
    edges = np.quantile(filled, np.linspace(0, 1, _SIZE_BINS + 1)[1:-1]) if filled else np.array([])
    size_bins = [int(np.searchsorted(edges, fraction)) for fraction in fractions]
    strata = [f"{classes}/{size_bin}" for classes, size_bin in zip(classes_present, size_bins, strict=True)]
    for coarser in (classes_present, ["other"] * len(cases)):
        members = Counter(strata)
        strata = [own if members[own] >= folds else other for own, other in zip(strata, coarser, strict=True)]
    return strata if max(Counter(strata).values()) >= folds else ["all"] * len(cases)


def describe_folds(
    fingerprint: Fingerprint,
    spec: DatasetSpec,
    groups: Mapping[str, str],
    folds: Sequence[Fold],
    requested: int,
    *,
    stratified: bool = True,
) -> str:
    """How the folds were made, and which class is missing in which."""
    patients = len({case.group or spec.groups.get(case.case, "") for case in fingerprint.cases} - {""})
    parts = [f"{len(folds)} folds over {len(fingerprint.cases)} cases"]
    parts.append(f"{patients} patients kept whole" if patients else "no patients are known, so each case counts as one")
    if fingerprint.duplicates:
        num_duplicates = sum(len(cluster) for cluster in fingerprint.duplicates)
        parts.append(f"{num_duplicates} cases in {len(fingerprint.duplicates)} clusters of equal pictures kept together")
    parts += ["stratified by the classes a case holds and by foreground size"] if stratified else []
    if len(folds) < requested:
        parts.append(f"{requested} were asked for, but there are only {len(set(groups.values()))} independent groups")
    cases_by_class = {
        name: {case.case for case in fingerprint.cases if name in case.classes and case.classes[name].pixels > 0}
        for name in sorted({name for case in fingerprint.cases for name in case.classes})
    }
    for name, cases_with in cases_by_class.items():
        without = [str(n) for n, fold in enumerate(folds) if not cases_with & set(fold.validation)]
        if cases_with and without:
            parts.append(f"{name} ({len(cases_with)} cases) is missing in the validation of fold {', '.join(without)}")
    return "; ".join(parts)


def _sorted(names: np.ndarray[tuple[int], np.dtype[np.str_]]) -> tuple[str, ...]:
    return tuple(sorted(str(name) for name in names))


def _suggestion(name: str, known: set[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
