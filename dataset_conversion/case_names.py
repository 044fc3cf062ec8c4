"""Names of cases. Files of hospitals are named after patients, and a raw dataset is shared: such cases get neutral names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.fingerprint.name_groups import LARGEST_SHARE, suggest_groups
from autoseg.io import deidentify, dicom
from autoseg.io.deidentify import NAMES, Names
from autoseg.support.errors import AutosegError
from dataset_conversion.source import Entry
from dataset_conversion.storing import NewCase

_DICOM = (".dcm", ".dicom")


@dataclass(frozen=True)
class CaseNames:
    """cases: name of the file, without suffix -> case. hidden: the names that identify somebody."""

    cases: dict[str, str]
    hidden: frozenset[str]

    @property
    def renamed(self) -> dict[str, str]:
        return {name: case for name, case in self.cases.items() if name != case}

    def notes(self) -> list[str]:
        """What was renamed, without names that identify somebody."""
        notes = []
        if self.hidden:
            notes.append(
                f"{len(self.hidden)} cases are named case_ and digits of their file's SHA-256, as the files are DICOM or named "
                "after patients (--names-table FILE writes which is which, --keep-names keeps the names)"
            )
        others = {name: case for name, case in self.renamed.items() if name not in self.hidden}
        if others:
            name, case = next(iter(others.items()))
            notes.append(f"{len(others)} cases were renamed to valid file names, such as {name!r} -> {case!r}")
        return notes


def name_cases(files: Mapping[str, Path], names: Names) -> CaseNames:
    """files: name of a case as its files have it, with '/' -> its first image.

    names: "auto" hides DICOM files and names with a date, a caret, a UID, or a word of a patient's tags; "keep" none, "hide"
    all. A hidden case has the name that `autoseg_predict` gives the same file.
    """
    _check(names)
    files_of_dicom = {path for path in files.values() if names == "auto" and is_dicom(path)}
    words = deidentify.patients(files_of_dicom)
    hidden = {
        name
        for name, path in files.items()
        if names == "hide"
        or (names == "auto" and (path in files_of_dicom or deidentify.is_identifying(Path(f"{name}{path.suffix}"), words)))
    }
    proposed = {name: deidentify.pseudonym(path) if name in hidden else name for name, path in files.items()}
    return CaseNames(unique_names(proposed), frozenset(hidden))


def name_converted_cases(cases: Sequence[NewCase], names: Names) -> CaseNames:
    """The same for the cases of a layout, of which those named after their DICOM file are hidden."""
    _check(names)
    proposed = {case.name: case.name for case in cases}
    hidden = set()
    for case in cases:
        entry = case.images[0]
        if isinstance(entry, Entry) and (names == "hide" or (names == "auto" and _is_named_after_dicom(case.name, entry))):
            with entry.local() as path:
                proposed[case.name] = deidentify.pseudonym(path)
            hidden.add(case.name)
    return CaseNames(unique_names(proposed), frozenset(hidden))


def _is_named_after_dicom(name: str, entry: Entry) -> bool:
    return entry.suffix in _DICOM and name.casefold() in entry.name.casefold()


def _check(names: Names) -> None:
    if names not in NAMES:
        raise AutosegError(f"names cannot be {names!r}", f"one of {', '.join(NAMES)}")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix or its content."""
    return path.suffix.lower() in _DICOM or dicom.is_dicom(path)


def neutral_groups(names: CaseNames, groups: Mapping[str, str]) -> dict[str, str]:
    """groups: name of the file -> patient. The same groups with numbers for names, if names of cases are hidden."""
    if not names.hidden:
        return dict(groups)
    # In the order of the cases, which says nothing of the patients, unlike that of their names.
    ordered = dict.fromkeys(groups[name] for name in sorted(groups, key=names.cases.__getitem__))
    numbers = {group: f"patient_{number:03d}" for number, group in enumerate(ordered, 1)}
    return {name: numbers[group] for name, group in groups.items()}


def groups_of_tags(files: Mapping[str, Path]) -> tuple[dict[str, str], list[str]]:
    """Name of the file -> patient's id in its DICOM tags, and a note; empty if the ids do not tell patients apart."""
    ids = {name: number for name, path in files.items() if is_dicom(path) and (number := dicom.patient_id(path))}
    sizes = Counter(ids.values())
    if len(ids) < len(files) or len(sizes) == len(files) or max(sizes.values(), default=0) > LARGEST_SHARE * len(files):
        return {}, []
    return ids, [f"cases are grouped by the id of their patient in DICOM ({len(sizes)} patients); --groups decides otherwise"]


def suggestion(names: CaseNames) -> list[str]:
    """A note if the hidden names look like several images of one patient, since nobody can see it later."""
    suggested = suggest_groups(list(names.cases)) if names.hidden else None
    if suggested is None:
        return []
    return [
        f"the names of the files look like several images of one patient ({suggested.groups} groups): confirm with "
        f"--overwrite --groups '{suggested.pattern}', which keeps them together, or deny with --overwrite --groups none"
    ]


def safe_names(stems: Sequence[str]) -> dict[str, str]:
    """stem -> a case name of letters, digits, '_', '-' and '.', unique also without regard to case."""
    return unique_names({stem: stem for stem in stems})


def unique_names(proposed: Mapping[str, str]) -> dict[str, str]:
    """The same for names that are proposed for each stem."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for stem, wish in proposed.items():
        plain = unicodedata.normalize("NFKD", wish).encode("ascii", "ignore").decode()
        base = re.sub(r"[^A-Za-z0-9.-]+", "_", plain).strip("_.-") or "case"
        # An underscore in the name itself is no reason to change it.
        name = base = wish if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", wish) else base
        count = 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name.casefold())
        names[stem] = name
    return names
