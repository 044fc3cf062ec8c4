"""Makes the tables of documentation/reading.md by reading one file of each kind.

`python -m tests.documentation.reading` writes them into the page.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.documentation.pages import REPOSITORY
from tests.io import dicom_matrix, nifti_matrix, tiff_matrix
from tests.io.outcomes import table

PAGE = REPOSITORY / "documentation" / "reading.md"
_BLOCK = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
TABLES: dict[str, Callable[[Path], str]] = {
    "tiff kinds": lambda folder: table(("TIFF stored as", "numbers", "as an image", "as a mask"), tiff_matrix.rows(folder)),
    "tiff pages": lambda folder: table(("pages", "as an image", "as a mask"), tiff_matrix.layout_rows(folder), types=False),
    "dicom": lambda folder: table(("DICOM object", "numbers", "with `[dicom]`", "SimpleITK alone"), dicom_matrix.rows(folder)),
    "nifti": lambda folder: table(("NIfTI and others", "numbers", "as an image", "as a mask"), nifti_matrix.rows(folder)),
}


def with_tables(page: str, folder: Path) -> str:
    """The page with its tables made anew. folder: for the files that are read."""

    def replacement(match: re.Match[str]) -> str:
        place = folder / match[2].replace(" ", "_")
        place.mkdir()
        return match[1] + TABLES[match[2]](place) + match[3]

    return _BLOCK.sub(replacement, page)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), Path(temporary)), encoding="utf-8")
