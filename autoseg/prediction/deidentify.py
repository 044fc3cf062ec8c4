"""What a case may be called: names of files in hospitals carry names of patients, numbers and dates."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from autoseg.io import dicom
from autoseg.support.files import hash_file

# auto: names that could tell who is shown are replaced; keep: none; hide: all.
Names = Literal["auto", "keep", "hide"]
NAMES: tuple[Names, ...] = ("auto", "keep", "hide")

_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-_. ]?(?:0[1-9]|1[0-2])[-_. ]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-_. ](?:0?[1-9]|1[0-2])[-_. ](?:19|20)?\d\d)(?!\d)"
)
_UID = re.compile(r"\d+(?:\.\d+){4,}")


def pseudonym(path: Path) -> str:
    """A name that says nothing, the same for the same file: the first twelve digits of its SHA-256."""
    return f"case_{hash_file(path)[:12]}"


def is_identifying(path: Path, known: Collection[str]) -> bool:
    """Whether a path (folders and name, as far as it would be shown) could tell who is shown.

    That is: DICOM files, dates, DICOM's carets and long dotted numbers, and words of `known`.
    """
    text = str(path)
    if "^" in text or _DATE.search(text) or _UID.search(text):
        return True
    words = {word.casefold() for word in re.split(r"[^\w]+|_", text) if word}
    return bool(words & set(known)) or any(word.casefold() in text.casefold() for word in known if len(word) >= 6)


def patients(paths: Iterable[Path]) -> set[str]:
    """Words of names and numbers of all patients that the DICOM files among these tell of."""
    return {word for path in paths for word in dicom.patient_identifiers(path)} if dicom.available() else set()
