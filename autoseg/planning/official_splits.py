"""The splits that publishers of datasets made themselves, as one fold: their test images are validated.

`cases.csv`, which `autoseg_convert` writes next to dataset.json, has the part of each case in its column `split`, read from the
folders and lists of the published archive. Without it the names of the cases decide, where the published names hold the part:

- DRIVE, FIVES, GlaS: `training`, `train`, `test`, `testA`, `testB` are in the names (Staal et al. 2004; Jin et al. 2022;
  Sirinukunwattana et al. 2017).
- ACDC: patients 1 to 100 train, 101 to 150 test (Bernard et al. 2018).
- MoNuSeg: the 14 test images of the challenge of 2018 (Kumar et al. 2020), by their names in the archive of test data.

ISIC 2018 and CAMUS have names without a part: their archives decide, through `cases.csv`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.planning.splits import independent_groups
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError

OFFICIAL = "official"
TABLE, COLUMN = "cases.csv", "split"
TRAINING, VALIDATION, TEST = "training", "validation", "test"
# Words of archives and of other people's tables.
_WORDS = {"train": TRAINING, "training": TRAINING, "val": VALIDATION, "validation": VALIDATION, "test": TEST, "testing": TEST}

_MONUSEG_TEST = (
    "TCGA-2Z-A9J9-01A-01-TS1", "TCGA-44-2665-01B-06-BS6", "TCGA-69-7764-01A-01-TS1", "TCGA-A6-6782-01A-01-BS1",
    "TCGA-AC-A2FO-01A-01-TS1", "TCGA-AO-A0J2-01A-01-BSA", "TCGA-CU-A0YN-01A-02-BSB", "TCGA-EJ-A46H-01A-03-TSC",
    "TCGA-FG-A4MU-01B-01-TS1", "TCGA-GL-6846-01A-01-BS1", "TCGA-HC-7209-01A-01-TS1", "TCGA-HT-8564-01Z-00-DX1",
    "TCGA-IZ-8196-01A-01-BS1", "TCGA-ZF-A9R5-01A-01-TS1",
)  # fmt: skip


@dataclass(frozen=True)
class NamedSplit:
    """A published set whose names hold the part: every case's name matches `training` or `test` as a whole."""

    title: str
    training: str
    test: str


NAMED = (
    NamedSplit("DRIVE", r"\d\d_training", r"\d\d_test"),
    NamedSplit("FIVES", r"train_\d+_[ADGN]", r"test_\d+_[ADGN]"),
    NamedSplit("GlaS", r"train_\d+", r"test[AB]_\d+"),
    NamedSplit("ACDC", r"patient(0\d\d|100)_frame\d+(_.+)?", r"patient1(0[1-9]|[1-4]\d|50)_frame\d+(_.+)?"),
    NamedSplit("MoNuSeg", r"TCGA-[\w-]+", "|".join(_MONUSEG_TEST)),
)


def make_official_splits(fingerprint: Fingerprint, spec: DatasetSpec, folder: Path) -> Splits:
    """One fold: the publisher's test cases are validated, all others train, the publisher's validation cases as inner ones.

    folder: of the raw dataset. Patients on both sides are the publisher's, and named in the reason. Raises AutosegError if
    nothing says which cases are test cases, or if none are among the training cases of the raw dataset.
    """
    names = [case.case for case in fingerprint.cases]
    title, parts = _parts(names, folder)
    of_part = {part: tuple(sorted(name for name in names if parts[name] == part)) for part in (TRAINING, VALIDATION, TEST)}
    title = title or spec.name or fingerprint.dataset.partition("_")[2]
    if not of_part[TEST] or not of_part[TRAINING]:
        missing = TEST if not of_part[TEST] else TRAINING
        raise AutosegError(
            f"the official split of {title} needs its {missing} cases among those that train, and there are none",
            "convert with --merge-test; without it the test images lie in imagesTs, where no training sees them, and --splits "
            "canonical makes folds of the others",
        )
    inner = of_part[VALIDATION]
    fold = Fold(tuple(sorted((*of_part[TRAINING], *inner))), of_part[TEST], inner)
    counts = f"{len(fold.train) - len(inner)} training, {len(inner)} validation and {len(fold.validation)} test cases"
    shared = _shared_groups(fold, independent_groups(fingerprint, spec.groups))
    leak = f"; warning: {shared} patients or pictures are on both sides, as published" if shared else ""
    return Splits(folds=(fold,), reason=f"official split of {title}: {counts}{leak}", given=OFFICIAL, official=title)


def _parts(names: Iterable[str], folder: Path) -> tuple[str, dict[str, str]]:
    """The set's title ("" if cases.csv decides), and the part of each case."""
    names = list(names)
    table = folder / TABLE
    listed = _listed_parts(table)
    if listed:
        unknown = [name for name in names if name not in listed]
        if unknown:
            raise AutosegError(
                f"{table} says for {len(unknown)} cases, such as {unknown[0]}, not in which part of the split they are",
                "convert again, or fill its column split with training, validation or test",
            )
        return "", listed
    for one in NAMED:
        test = {name for name in names if re.fullmatch(one.test, name)}
        if all(name in test or re.fullmatch(one.training, name) for name in names):
            return one.title, {name: TEST if name in test else TRAINING for name in names}
    known = ", ".join(one.title for one in NAMED)
    raise AutosegError(
        f"nothing says which cases are the official test cases: {table} has no column {COLUMN}, and the names are not those "
        f"of {known}",
        "convert the published archive with autoseg_convert and --merge-test, which writes that column; or use "
        "--splits canonical",
    )


def _listed_parts(table: Path) -> dict[str, str]:
    """Case -> part of the column `split`; empty without the table or the column."""
    if not table.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AutosegError(f"{table} cannot be read: {error}", "convert again, or save it as CSV in UTF-8") from error
    parts = {row["case"]: (row.get(COLUMN) or "").strip().casefold() for row in rows if row.get("case")}
    wrong = Counter(part for part in parts.values() if part and part not in _WORDS)
    if wrong:
        raise AutosegError(
            f"{table}: {next(iter(wrong))!r} in the column {COLUMN} is no part of a split", f"one of {', '.join(_WORDS)}"
        )
    return {case: _WORDS[part] for case, part in parts.items() if part}


def _shared_groups(fold: Fold, groups: Mapping[str, str]) -> int:
    return len({groups[name] for name in fold.train} & {groups[name] for name in fold.validation})
