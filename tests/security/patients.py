"""DICOM files in which every attribute that can hold a text, a date or a number about somebody holds a secret."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.io.scans import scan

NAME, ID, DATE = "Zwetschgenmus^Erika", "4711-0815", "19610304"
# In all forms in which a copy may hold them. Each is long, and no hexadecimal digits: checksums hold those by chance.
SECRETS = ("zwetschgenmus", "erika", "4711-0815", "4711.0815", "1961-03-04", "19610304", "qsecretq")
_TEXT, _LIMITED = ("LO", "LT", "ST", "UC", "UT", "UR"), ("SH", "CS", "AE")
_VALUES: dict[str, Any] = {
    **dict.fromkeys(_TEXT, "qsecretq of Erika Zwetschgenmus"), **dict.fromkeys(_LIMITED, "QSECRETQ"), "PN": NAME, "DA": DATE,
    "DT": f"{DATE}030405", "TM": "030405", "AS": "066Y", "DS": "4711.0815", "IS": "4711", "OB": b"qsecretq", "UN": b"qsecretq",
}  # fmt: skip
# What decides how pixels are decoded and where they lie: numbers and codes of these groups, and the character set.
_OF_PIXELS, _FIRST_GROUP = (0x0020, 0x0028, 0x0048), 0x0008
_NOT_ABOUT_ANYBODY = {
    "SpecificCharacterSet", "PixelData", "NumberOfFrames", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SliceThickness",
    "SpacingBetweenSlices",
}  # fmt: skip


def all_secret_attributes() -> dict[str, Any]:
    """Keyword -> value, of about 3,300 attributes of the whole DICOM dictionary."""
    import pydicom
    from pydicom._dicom_dict import DicomDictionary

    values: dict[str, Any] = {}
    for tag, (kind, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if not keyword or retired or group < _FIRST_GROUP or keyword in _NOT_ABOUT_ANYBODY:
            continue
        if kind in _VALUES and not (group in _OF_PIXELS and kind in ("DS", "IS", "CS", "OB")):
            values[keyword] = _VALUES[kind]
        elif kind == "SQ" and group not in (*_OF_PIXELS, 0x5200) and keyword != "SequenceOfUltrasoundRegions":
            item = pydicom.Dataset()
            item.PatientName, item.PatientID, item.TextValue = NAME, ID, _VALUES["UT"]
            values[keyword] = [item]
    return values | {"PatientID": ID, "PatientSex": "F"}


def secret_scan(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """A file of (H, W) or (frames, H, W) values with all secret attributes, and private ones."""
    import pydicom

    scan(path, pixels, **(all_secret_attributes() | tags))
    content = pydicom.dcmread(path)
    content.private_block(0x0011, "QSECRETQ", create=True).add_new(1, "LO", NAME)
    content.private_block(0x0029, "QSECRETQ", create=True).add_new(2, "UT", "qsecretq")
    content.save_as(path)
    return path


def texts_of(path: Path) -> Iterator[bytes]:
    """The content of a file, in lower case, also of what is packed in it."""
    content = path.read_bytes()
    yield content.lower()
    if content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content).lower()
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name).lower() for name in archive.namelist())
            yield from (name.lower().encode() for name in archive.namelist())


def leaks(folder: Path) -> list[str]:
    """Which file of a folder holds which secret."""
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        pieces = [str(relative).lower().encode(), *(texts_of(path) if path.is_file() else ())]
        found += [f"{relative}: {secret}" for secret in SECRETS if any(secret.encode() in piece for piece in pieces)]
    return found
