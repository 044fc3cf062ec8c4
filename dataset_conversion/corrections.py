"""What a person accepted in an audit's gallery, as a new dataset; the audited one is not touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.io import Case, read_label
from autoseg.io.raw_dataset import RawDataset
from autoseg.schema.audit import Audit, Decisions
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file, read_artefact
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.report import ConversionReport
from dataset_conversion.run import place_for
from dataset_conversion.writer import NewCase, write_dataset

# As the audit writes it: the reference stays as it is.
_UNCHANGED = 65535


def correct(
    decisions: Path,
    name: str,
    number: int | None,
    workspace: Workspace,
    audit: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> ConversionReport:
    """A copy of the audited dataset with the accepted suggestions in its masks.

    Accepted contradictions are applied from the lowest score to the highest, so that the surest one has the last word; of
    accepted conflicting duplicates the case is left out. audit: folder of audit.json (default: results/<dataset>/audit).
    Raises AutosegError where the decisions belong to another audit or would overwrite the audited dataset, SeveralProblems
    where masks have changed since.
    """
    made = read_artefact(decisions, Decisions, "give the file that the gallery saved")
    original = workspace.dataset(made.dataset)
    folder = audit or original.results / "audit"
    found = read_artefact(folder / "audit.json", Audit, f"autoseg_audit {original.number}")
    _check(made, found, original, decisions)
    target = place_for(workspace, name, number)
    if target.raw == original.raw:
        raise AutosegError(f"{name} is the audited dataset itself", "give the corrected one another name")
    raw = RawDataset.open(original)
    accepted = [one for one in reversed(found.findings) if made.decisions.get(one.id) == "accept"]
    dropped = {one.case for one in accepted if not one.suggestion}
    patches: dict[str, list[Path]] = {}
    for one in accepted:
        if one.suggestion:
            patches.setdefault(one.case, []).append(folder / one.suggestion)
    changed = sum(case not in dropped for case in patches)
    notes = [f"{changed} masks corrected and {len(dropped)} cases left out, as decided in an audit of {original.name}"]
    kept = [case for case in raw.cases if case.name not in dropped]
    cases = [_case(case, patches.get(case.name, []), raw, "Tr") for case in kept]
    cases += [_case(case, [], raw, "Ts") for case in raw.test_cases]
    return write_dataset(target, raw.spec, cases, overwrite, notes=notes, dry_run=dry_run)


def _check(made: Decisions, found: Audit, original: Dataset, file: Path) -> None:
    known = {one.id for one in found.findings}
    strange = sorted(set(made.decisions) - known)
    if found.dataset != original.name or strange:
        raise AutosegError(
            f"{file} belongs to another audit of {made.dataset}: it decides on {', '.join(strange[:5]) or found.dataset}",
            "apply decisions before the audit is run again, or click through the new gallery",
        )
    touched = sorted({one.case for one in found.findings if made.decisions.get(one.id) == "accept"})
    faults = [f"{case}: its mask has changed, or is gone" for case in touched if not _is_as_audited(case, found, original)]
    if faults:
        raise SeveralProblems(f"{original.name} is not what was audited:", faults, f"autoseg_audit {original.number}")


def _is_as_audited(case: str, found: Audit, original: Dataset) -> bool:
    path = {one.name: one.label for one in RawDataset.open(original).cases}.get(case)
    return path is not None and path.is_file() and hash_file(path) == found.references.get(case)


def _case(case: Case, patches: list[Path], raw: RawDataset, part: str) -> NewCase:
    label = None
    if case.label is not None:
        label = read_label(case.label).array
        for patch in patches:
            values = read_label(patch).array
            label = np.where(values != _UNCHANGED, values, label).astype(label.dtype)
    group = raw.spec.groups.get(case.name, "")
    return NewCase(name=case.name, images=case.images, label=label, group=group, part="Tr" if part == "Tr" else "Ts")
