"""Which cases candidates train on, which decide, and which no decision sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoseg.planning.splits import even_parts, independent_groups
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import count
from autoseg.schema.plan import Splits
from autoseg.support.errors import AutosegError

# Parts that the cases are divided into, and how many of them are held back, and decide; candidates train on the others.
_PARTS, _HELD_BACK, _DECIDING = 10, 3, 2
_FEWEST = 5
# More would take longer to predict than a short training takes, and tell hardly more.
_MOST_DECIDING = 100


@dataclass(frozen=True)
class CaseRoles:
    """training, deciding: of the rungs. held_back: of the folds' held-out cases those that no rung ever reads."""

    training: tuple[str, ...]
    deciding: tuple[str, ...]
    held_back: tuple[str, ...]
    reason: str


def case_roles(splits: Splits, fingerprint: Fingerprint, spec: DatasetSpec, seed: int) -> CaseRoles:
    """Divide the cases of the folds; patients and duplicates stay together, classes and sizes are spread evenly.

    Where not every case is held out in some fold, as with an official test set, the held-out cases are held back, and no
    others. Raises AutosegError if there are too few independent cases.
    """
    groups = independent_groups(fingerprint, spec.groups)
    held_out = {case for fold in splits.folds for case in fold.validation}
    all_cases = tuple(sorted(held_out | {case for fold in splits.folds for case in fold.train}))
    trained_only = tuple(case for case in all_cases if case not in held_out)
    source = trained_only or all_cases
    independent = len({groups[case] for case in source})
    if independent < _FEWEST:
        raise AutosegError(
            f"{fingerprint.dataset} has {count(independent, 'independent patient or case')} to decide with, a selection needs "
            f"{_FEWEST}",
            "add data, or train the models with autoseg_run and compare them",
        )
    parts = even_parts(fingerprint, spec, source, min(_PARTS, independent), seed)
    share = len(parts) / _PARTS
    held = 0 if trained_only else max(1, round(_HELD_BACK * share))
    decide = max(1, round(_DECIDING * share))
    deciding, surplus = _at_most([case for part in parts[held : held + decide] for case in part], groups)
    training = [case for part in parts[held + decide :] for case in part] + surplus
    held_back = tuple(sorted(held_out)) if trained_only else tuple(sorted(case for part in parts[:held] for case in part))
    kept = "the held-out cases of the given folds are" if trained_only else f"{held} of {len(parts)} parts of the cases are"
    reason = (
        f"{kept} held back ({count(len(held_back), 'case')}): no rung reads them. Candidates train on "
        f"{count(len(training), 'case')} and are compared on {len(deciding)} others. Patients and duplicates are in one part."
    )
    return CaseRoles(tuple(sorted(training)), tuple(sorted(deciding)), held_back, reason)


def _at_most(cases: list[str], groups: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The first groups of the cases, until there are enough, and the other cases."""
    kept: dict[str, None] = {}
    number = 0
    for case in cases:
        if number < _MOST_DECIDING:
            kept.setdefault(groups[case])
        number += groups[case] in kept
    return [case for case in cases if groups[case] in kept], [case for case in cases if groups[case] not in kept]
