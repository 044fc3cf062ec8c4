"""Writes raw datasets for all converters. It checks while it writes, and leaves all or nothing.

nnU-Net v2's layout has one file ending for images and masks, so it must be lossless: JPEG images are stored as PNG, pixel
for pixel. DICOM becomes NIfTI, and MetaImage and NRRD are rewritten, so that no patient tags remain. All other files are
copied byte for byte, unless reading changed something (see `Image.notes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.fingerprint.name_groups import suggest_groups, suggestion_text
from autoseg.io import mask_ending, suffix_of
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.limits import is_file_name
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.case_names import safe_names
from dataset_conversion.contact_sheet import write_contact_sheet
from dataset_conversion.report import SHEET, ConversionReport, case_notes, is_converted, make_record, write_record
from dataset_conversion.stage import Stage, StoredCase, staging_folder
from dataset_conversion.storing import NewCase, store_case

__all__ = ["NewCase", "common_ending", "next_number", "safe_names", "write_dataset"]

_MIXED_TIFF = (".tif", ".tiff")
_STORED_AS = {".jpg": ".png", ".jpeg": ".png", ".dcm": ".nii.gz", ".mhd": ".mha", "": ".nii.gz"}
_FIRST_NUMBER = 501


def write_dataset(
    dataset: Dataset,
    spec: DatasetSpec,
    cases: Iterable[NewCase],
    overwrite: bool = False,
    workers: int | None = None,
    *,
    key: str = "",
    notes: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> ConversionReport:
    """Write the raw dataset, with `conversion.json` and a contact sheet.

    spec: numTraining and groups are filled in here. key: hash of source and options, to resume an interrupted run; "":
    never resume. notes, renamed: for the report. dry_run: read and check only. Raises SeveralProblems with every fault
    of every case, and AutosegError if the dataset exists and overwrite is False; the folder then stays as it was.
    """
    check_free(dataset, overwrite)
    _check_labels(spec)
    if dry_run:
        stored = _write(None, cases, spec, workers, dataset)
        return _report(dataset, spec, stored, key, notes, renamed, dry_run=True)
    with staging_folder(dataset, key) as stage:
        stored = _write(stage, cases, spec, workers, dataset)
        report = _report(dataset, spec, stored, key, notes, renamed)
        write_description(stage.folder / "dataset.json", report.spec)
        write_record(stage.folder, report.record, stored)
        write_contact_sheet(stage.folder / SHEET, stage.folder, report.spec, stored)
    return report


def _check_labels(spec: DatasetSpec) -> None:
    """Raises AutosegError for labels that contradict each other or cannot name files."""
    unsafe = [name for name in spec.labels if not is_file_name(name)]
    if unsafe:
        raise AutosegError(
            f"{', '.join(map(repr, unsafe))} cannot name a class, because classes name files too",
            "give a name without '/', '\\' and control characters",
        )
    try:
        spec.label_scheme()
    except ValueError as error:
        raise AutosegError(str(error), "correct the labels") from error


def _write(
    stage: Stage | None, cases: Iterable[NewCase], spec: DatasetSpec, workers: int | None, dataset: Dataset
) -> list[StoredCase]:
    scheme: LabelScheme = spec.label_scheme()
    problems: list[str] = []
    stored: list[StoredCase] = []
    taken: dict[str, str] = {}

    def store(case: NewCase) -> tuple[NewCase, StoredCase | None, list[str]]:
        if not is_file_name(case.name):
            return case, None, [f"{case.name!r} cannot name a case: it is no file name"]
        earlier = None if stage is None else stage.completed.get((case.part, case.name))
        if earlier is not None:
            return case, earlier, []
        return case, *store_case(None if stage is None else stage.folder, case, spec, scheme)

    for case, stored_case, faults in progress_bar(parallel_map(store, cases, workers), "check" if stage is None else "write"):
        problems += faults
        if case.name.casefold() in taken:
            problems.append(f"two cases have the names {case.name} and {taken[case.name.casefold()]}")
        taken[case.name.casefold()] = case.name
        if stored_case is not None:
            stored.append(stored_case)
            if stage is not None and (case.part, case.name) not in stage.completed:
                stage.record(stored_case)
    if not problems and not any(case.part == "Tr" for case in stored):
        problems.append("there is no training case")
    foreground = {str(value) for value in scheme.values if value not in (0, scheme.ignore)}
    if not problems and not any(foreground & set(case.pixels) for case in stored if case.part == "Tr"):
        problems.append("no mask of a training case holds any foreground")
    if problems:
        raise SeveralProblems(f"{dataset.name} was not written", problems, "fix these files and convert again")
    return stored


def _report(
    dataset: Dataset,
    spec: DatasetSpec,
    stored: Sequence[StoredCase],
    key: str,
    notes: Sequence[str],
    renamed: Mapping[str, str] | None,
    dry_run: bool = False,
) -> ConversionReport:
    changes = case_notes(note for case in stored for note in case.notes)
    record = make_record(key, spec, stored, [*notes, *changes, *_group_notes(dataset, spec, stored)])
    groups = {case.name: case.group for case in stored if case.group}
    written = replace(spec, numTraining=record.training, groups=groups, name=spec.name or dataset.short_name)
    return ConversionReport(dataset=dataset, spec=written, record=record, renamed=dict(renamed or {}), dry_run=dry_run)


def _group_notes(dataset: Dataset, spec: DatasetSpec, stored: Sequence[StoredCase]) -> list[str]:
    """A note if the names hold patients, and nobody said so."""
    if spec.independent_cases or any(case.group for case in stored):
        return []
    suggested = suggest_groups([case.name for case in stored])
    return [] if suggested is None else [suggestion_text(suggested, dataset.short_name)]


def next_number(workspace: Workspace) -> int:
    """The first free number from 501 on."""
    used = {dataset.number for dataset in workspace.datasets()}
    return next(number for number in range(_FIRST_NUMBER, _FIRST_NUMBER + len(used) + 1) if number not in used)


def common_ending(paths: Iterable[Path]) -> str:
    """The file ending to store a set of images with. Raises AutosegError for pictures mixed with medical files."""
    endings = {_STORED_AS.get(suffix_of(path)) or mask_ending(suffix_of(path)) for path in paths}
    if len(endings) == 1:
        return endings.pop()
    pictures = {".png", ".bmp", *_MIXED_TIFF}
    if endings & pictures and endings - pictures:
        raise AutosegError(f"images come as {', '.join(sorted(endings))}", "give pictures and medical files as two datasets")
    if endings <= pictures:
        return ".tif" if endings & set(_MIXED_TIFF) else ".png"
    return ".nii.gz"


def check_free(dataset: Dataset, overwrite: bool) -> None:
    """Raises AutosegError if another dataset has the number, the folder exists and overwrite is False, or it would be
    overwritten although no conversion wrote it."""
    for other in Workspace(dataset.root).datasets():
        if other.number == dataset.number and other.name.casefold() != dataset.name.casefold():
            raise AutosegError(f"the number {dataset.number} belongs to {other.name}", "choose another number with --id")
    if dataset.raw.exists() and not overwrite:
        raise AutosegError(f"{dataset.raw} exists", "choose another --name or --id, or replace it with --overwrite")
    if dataset.raw.is_symlink() or (dataset.raw.exists() and not is_converted(dataset)):
        raise AutosegError(
            f"{dataset.raw} was not written by autoseg_convert, so --overwrite does not delete it",
            "choose another --name or --id, or move it away",
        )
