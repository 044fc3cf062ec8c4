"""Duplicates: kept together in one fold, or left out of all folds but for one of each set, as in the first study."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from autoseg.planning.study_protocol import expected_cases
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision

logger = logging.getLogger(__name__)

Duplicates = Literal["grouped", "removed"]
_SUBJECT = "training.duplicates"


def duplicates_to_remove(fingerprint: Fingerprint, spec: DatasetSpec) -> tuple[str, ...]:
    """The cases to leave out: of each set of equal or nearly equal pictures all but one.

    Different frames of one patient are no duplicates, however alike they are: the splits keep them together.
    """
    near: dict[str, int] = {}
    for number, finding in enumerate(fingerprint.findings):
        if finding.kind == "near_duplicate":
            near |= dict.fromkeys(finding.cases, number)
    patients = _patients(fingerprint, spec.groups)
    removed: list[str] = []
    pixels: set[str] = set()
    first_patient: dict[int, str] = {}
    # By content, so that the same images give the same choice whatever their names.
    for case in sorted(fingerprint.cases, key=lambda case: (case.pixel_hash, case.case)):
        patient = patients[case.case]
        known = first_patient.setdefault(near[case.case], patient) if case.case in near else patient
        if case.pixel_hash in pixels or known != patient:
            removed.append(case.case)
        else:
            pixels.add(case.pixel_hash)
    return tuple(sorted(removed))


def decide_duplicates(duplicates: Duplicates, fingerprint: Fingerprint, spec: DatasetSpec, benchmark: bool) -> Decision:
    """What happens to duplicates, with the study's counts as expectation in `benchmark`."""
    removed, total = len(duplicates_to_remove(fingerprint, spec)), len(fingerprint.cases)
    source = f"{total} cases, {len(fingerprint.duplicates)} clusters of duplicates"
    if duplicates == "grouped":
        reason = "equal and nearly equal pictures stay in one fold, so that none is on both sides"
        return Decision(_SUBJECT, duplicates, reason, source)
    left = total - removed
    reason = f"{removed} of {total} cases are in no fold: of equal or nearly equal pictures only one stays: {left} left"
    if not benchmark:
        return Decision(_SUBJECT, duplicates, reason, source)
    reason += ", as in the study, which compares raw bytes and perceptual hashes (autoseg: pixels and thumbnails)"
    expected = expected_cases(fingerprint, spec)
    if expected is not None:
        reason += f"; the study kept {expected.after} of {expected.before} images of {expected.name}"
        if total == expected.before and left != expected.after:
            reason += f", {abs(left - expected.after)} {'more' if expected.after > left else 'fewer'} than here"
            logger.warning(f"{fingerprint.dataset}: {reason}")
    return Decision(_SUBJECT, duplicates, f"{reason}; --set {_SUBJECT}=grouped keeps all, those of a set in one fold", source)


def _patients(fingerprint: Fingerprint, declared: Mapping[str, str]) -> dict[str, str]:
    """Case -> its patient; a case without one stands for itself."""
    return {case.case: case.group or declared.get(case.case, "") or f"case {case.case}" for case in fingerprint.cases}
