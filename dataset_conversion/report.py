"""Report of a conversion: counts, automatic changes, and duplicate images."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.fingerprint.near_duplicates import compare, connected_groups
from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.frame import Row, Tabular, count
from autoseg.schema.limits import Count, Share
from autoseg.support.errors import AutosegError
from autoseg.support.files import is_artefact, read_artefact, write_artefact, write_text
from autoseg.support.workspace import Dataset
from dataset_conversion.stage import StoredCase

RECORD, TABLE, SHEET = "conversion.json", "cases.csv", "contact_sheet.png"
_SHOWN = 10
_PIXELS = re.compile(r"^(\d+) pixels (.*)$")


@dataclass(frozen=True)
class ClassCount:
    """cases: training cases that hold the class; share: of all their pixels."""

    cases: Count
    share: Share


def _to_version_2(content: Content) -> Content:
    rename(content, "alike", "near_duplicates")
    return content


@dataclass(frozen=True, kw_only=True)
class ConversionRecord(Artefact):
    """`conversion.json`, next to `dataset.json`. key: hash of the source files and options; the same key needs no second run.

    duplicates, near_duplicates, similar: sets of cases with equal pixels, with the same picture in other pixels, and with
    pictures much more similar than usual in the dataset.
    """

    NAME = "conversion"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)

    key: str
    training: Count
    test: Count
    classes: dict[str, ClassCount]
    groups: Count
    notes: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...] = ()
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    similar: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class ConversionReport(Tabular):
    """What was written, or would be written (dry_run), or existed already (unchanged). renamed: published name -> case."""

    dataset: Dataset
    spec: DatasetSpec
    record: ConversionRecord
    renamed: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    unchanged: bool = False

    @property
    def cases(self) -> int:
        """Training cases."""
        return self.record.training

    @property
    def notes(self) -> tuple[str, ...]:
        """All automatic decisions and changes."""
        return self.record.notes

    def __str__(self) -> str:
        record = self.record
        cases = f"{record.training} cases" + (f" and {record.test} for testing" if record.test else "")
        cases += f" of {record.groups} patients or other groups" if record.groups else ""
        lines = [f"{self.dataset.raw}: {cases}", f"labels: {', '.join(self._label(name) for name in self.spec.labels)}"]
        lines += [f"  - {note}" for note in record.notes]
        lines += _format_sets("cases hold the same pixels", record.duplicates)
        lines += _format_sets(
            "cases show the same picture, or nearly: copies, or frames of one recording", record.near_duplicates
        )
        lines += _format_sets("cases look much more similar than usual in this dataset: perhaps one patient", record.similar)
        if self.dry_run:
            lines.append("dry run: everything was read and checked, nothing was written")
        elif self.unchanged:
            lines.append("it exists already, from the same files and options: nothing was done")
        elif (self.dataset.raw / SHEET).is_file():
            lines.append(f"look at {self.dataset.raw / SHEET}")
        return "\n".join(lines)

    def _label(self, name: str) -> str:
        value = self.spec.labels[name]
        shown = f"{value if isinstance(value, int) else '+'.join(map(str, value))} {name}"
        count = self.record.classes.get(name)
        return f"{shown} (in {count.cases}, {count.share:.2%} of the pixels)" if count else shown

    def summary(self) -> str:
        state = ", nothing written" if self.dry_run else ", unchanged" if self.unchanged else ""
        return f"{self.dataset.name}: {count(self.cases, 'case')}, {count(len(self.record.classes), 'class')}{state}"

    def to_rows(self) -> list[Row]:
        counts = {name: self.record.classes.get(name) for name in self.spec.labels}
        return [
            {"label": name, "value": self.spec.labels[name]}
            | ({"cases": one.cases, "pixel_share": one.share} if one is not None else {})
            for name, one in counts.items()
        ]


def make_record(key: str, spec: DatasetSpec, cases: Sequence[StoredCase], notes: Sequence[str]) -> ConversionRecord:
    """Counts and near-duplicates of the written cases."""
    training = [case for case in cases if case.part == "Tr"]
    empty = sum(1 for case in training if set(case.pixels) <= {"0"})
    all_notes = [*notes, f"{empty} masks are empty"] if empty else list(notes)
    likeness = compare((case.decoded_thumbnail for case in cases), (case.pixel_hash for case in cases))
    return ConversionRecord(
        key=key,
        training=len(training),
        test=len(cases) - len(training),
        classes=_classes(spec, training),
        groups=len({case.group for case in cases if case.group}),
        notes=tuple(all_notes),
        duplicates=_duplicates(cases),
        near_duplicates=_similar_groups(cases, likeness.same),
        similar=_similar_groups(cases, likeness.scene),
    )


def read_matching_record(dataset: Dataset, key: str) -> ConversionRecord | None:
    """The record of a dataset that was made with this key, else None."""
    path = dataset.raw / RECORD
    if not key or not path.is_file():
        return None
    try:
        record = read_artefact(path, ConversionRecord)
    except AutosegError:
        # Written by another release or another program: not made by this conversion.
        return None
    return record if record.key == key else None


def is_converted(dataset: Dataset) -> bool:
    """Whether a conversion wrote this dataset, of this release or another."""
    return is_artefact(dataset.raw / RECORD, ConversionRecord)


def write_record(folder: Path, record: ConversionRecord, cases: Sequence[StoredCase]) -> None:
    """Write `conversion.json` and, if cases have attributes, `cases.csv`."""
    write_artefact(folder / RECORD, record)
    columns = list(dict.fromkeys(key for case in cases for key in case.attributes))
    if not columns:
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "part", "group", *columns])
    for case in cases:
        table.writerow([case.name, case.part, case.group, *(case.attributes.get(column, "") for column in columns)])
    write_text(folder / TABLE, text.getvalue())


def _classes(spec: DatasetSpec, training: Sequence[StoredCase]) -> dict[str, ClassCount]:
    total = sum(sum(case.pixels.values()) for case in training)
    counts = {}
    for name, value in spec.labels.items():
        values = {str(item) for item in ((value,) if isinstance(value, int) else value)}
        held = [sum(case.pixels.get(item, 0) for item in values) for case in training]
        if name != "background":
            counts[name] = ClassCount(sum(map(bool, held)), sum(held) / max(total, 1))
    return counts


def _duplicates(cases: Sequence[StoredCase]) -> tuple[tuple[str, ...], ...]:
    by_hash: dict[str, list[str]] = {}
    for case in cases:
        by_hash.setdefault(case.pixel_hash, []).append(_shown_name(case))
    return tuple(tuple(names) for names in by_hash.values() if len(names) > 1)


def _similar_groups(cases: Sequence[StoredCase], pairs: Iterable[tuple[int, int]]) -> tuple[tuple[str, ...], ...]:
    sets = []
    for group in connected_groups(pairs):
        members = [cases[place] for place in group]
        # Slices and frames of one patient are expected to look alike, and splits keep them together.
        if not members[0].group or len({(case.group, case.part) for case in members}) > 1:
            sets.append(tuple(_shown_name(case) for case in members))
    return tuple(sets)


def _shown_name(case: StoredCase) -> str:
    return case.name if case.part == "Tr" else f"{case.name} (test)"


def _format_sets(what: str, sets: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"  - {len(names)} {what}: {', '.join(names[:_SHOWN])}" for names in sets[:_SHOWN]]
    if len(sets) > _SHOWN:
        lines.append(f"  - and {len(sets) - _SHOWN} more sets, listed in {RECORD}")
    across = sum(1 for names in sets if len({name.endswith(" (test)") for name in names}) > 1)
    if across:
        lines.append(f"  - {across} of these sets are on both sides of the test split")
    return lines


def case_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Each note once, with the number of files it applies to; pixel counts are summed."""
    files: Counter[str] = Counter()
    pixels: Counter[str] = Counter()
    for note in notes:
        count = _PIXELS.match(note)
        text = count[2] if count else note
        files[text] += 1
        pixels[text] += int(count[1]) if count else 0
    return tuple(
        f"{pixels[text]} pixels of {many} images {text}" if pixels[text] else f"{text} ({many} file{'s' if many > 1 else ''})"
        for text, many in sorted(files.items())
    )
