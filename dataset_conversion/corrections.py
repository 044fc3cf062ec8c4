"""Applies the corrections that a person accepted in an audit's gallery, as a new dataset; the audited one stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.io import Case, read_label, read_label_of
from autoseg.io.raw_dataset import RawDataset
from autoseg.schema.audit import Audit, Decisions
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file, read_artefact
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.report import ConversionReport
from dataset_conversion.run import target_dataset
from dataset_conversion.writer import NewCase, write_dataset

# Value of the audit's patches where the reference stays.
_UNCHANGED = 65535


def apply_corrections(
    decisions: Path,
    name: str,
    number: int | None,
    workspace: Workspace,
    audit: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> ConversionReport:
    """A copy of the audited dataset with the accepted suggestions in its masks.

    Suggestions are applied from the lowest score to the highest, so the most certain one is applied last. A case with
    accepted conflicting duplicates is left out. audit: folder of audit.json (default: results/<dataset>/audit). Raises
    AutosegError if the decisions belong to another audit or would overwrite the audited dataset, SeveralProblems if
    masks have changed since the audit.
    """
    review = read_artefact(decisions, Decisions, "give the decisions.json that the gallery saved")
    original = workspace.dataset(review.dataset)
    folder = audit or original.results / "audit"
    report = read_artefact(folder / "audit.json", Audit, f"autoseg_audit {original.number}")
    _check(review, report, original, decisions)
    target = target_dataset(workspace, name, number)
    if target.raw == original.raw:
        raise AutosegError(f"{name} is the audited dataset itself", "choose another name for the corrected dataset")
    raw = RawDataset.open(original)
    accepted = [one for one in reversed(report.findings) if review.decisions.get(one.id) == "accept"]
    dropped = {one.case for one in accepted if not one.suggestion}
    patches: dict[str, list[Path]] = {}
    for one in accepted:
        if one.suggestion:
            patches.setdefault(one.case, []).append(folder / one.suggestion)
    changed = sum(case not in dropped for case in patches)
    notes = [f"{changed} masks corrected and {len(dropped)} cases left out after an audit of {original.name}"]
    remaining = [case for case in raw.cases if case.name not in dropped]
    cases = [_new_case(case, patches.get(case.name, []), raw, "Tr") for case in remaining]
    cases += [_new_case(case, [], raw, "Ts") for case in raw.test_cases]
    return write_dataset(target, raw.spec, cases, overwrite, notes=notes, dry_run=dry_run)


def _check(review: Decisions, report: Audit, original: Dataset, file: Path) -> None:
    known = {one.id for one in report.findings}
    unknown_ids = sorted(set(review.decisions) - known)
    if report.dataset != original.name or unknown_ids:
        raise AutosegError(
            f"{file} belongs to another audit of {review.dataset}: it contains {', '.join(unknown_ids[:5]) or report.dataset}",
            "apply decisions before you run the audit again, or decide again in the new gallery",
        )
    accepted_cases = sorted({one.case for one in report.findings if review.decisions.get(one.id) == "accept"})
    faults = [
        f"{case}: its mask has changed or is missing" for case in accepted_cases if not _is_unchanged(case, report, original)
    ]
    if faults:
        raise SeveralProblems(f"{original.name} has changed since the audit:", faults, f"autoseg_audit {original.number}")


def _is_unchanged(case: str, report: Audit, original: Dataset) -> bool:
    path = {one.name: one.label for one in RawDataset.open(original).cases}.get(case)
    return path is not None and path.is_file() and hash_file(path) == report.references.get(case)


def _new_case(case: Case, patches: list[Path], raw: RawDataset, part: str) -> NewCase:
    label = None
    if case.label is not None:
        label = read_label_of(case.label, case.images).array
        for patch in patches:
            values = read_label(patch).array
            label = np.where(values != _UNCHANGED, values, label).astype(label.dtype)
    group = raw.spec.groups.get(case.name, "")
    return NewCase(name=case.name, images=case.images, label=label, group=group, part="Tr" if part == "Tr" else "Ts")
