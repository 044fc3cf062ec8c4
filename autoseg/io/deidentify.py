"""Pseudonyms for cases: file names in hospitals contain names, numbers and dates of patients."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from autoseg.io import dicom
from autoseg.support.files import hash_file

# auto: replace identifying names; keep: replace none; hide: replace all.
Names = Literal["auto", "keep", "hide"]
NAMES: tuple[Names, ...] = ("auto", "keep", "hide")

_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-_. ]?(?:0[1-9]|1[0-2])[-_. ]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-_. ](?:0?[1-9]|1[0-2])[-_. ](?:19|20)?\d\d)(?!\d)"
)
_UID = re.compile(r"\d+(?:\.\d+){4,}")


def pseudonym(path: Path) -> str:
    """case_ and the first twelve digits of the file's SHA-256: the same file always gets the same name."""
    return f"case_{hash_file(path)[:12]}"


def is_identifying(path: Path, patient_words: Collection[str]) -> bool:
    """True if a path (the part that would be shown) could identify a patient.

    It does if it contains a date, a caret, a DICOM UID, or one of `patient_words` (see `patients`).
    """
    text = str(path)
    if "^" in text or _DATE.search(text) or _UID.search(text):
        return True
    words = {word.casefold() for word in re.split(r"[^\w]+|_", text) if word}
    return bool(words & set(patient_words)) or any(
        word.casefold() in text.casefold() for word in patient_words if len(word) >= 6
    )


def patients(paths: Iterable[Path]) -> set[str]:
    """Words of the patient names and ids in the DICOM files among `paths`."""
    return {word for path in paths for word in dicom.patient_identifiers(path)} if dicom.available() else set()
