"""Folds as a plain text file that names images by their content, so that others can use them with their own copy.

    autoseg splits 1
    id: 2f1c-9a40-77de
    dataset: BUSI
    made: canonical rule, seed 0: ...
    folds: 5
    cases: 780

    00a3...  vtttt  benign (12)

A line for each case: the hash of its decoded pixels (`autoseg.fingerprint.pixel_hash`), a letter for each fold, and its name,
which only serves messages. The lines are sorted by hash and letters. The id is the beginning of the SHA-256 of all lines as
"<hash> <letters>" and a line feed: it changes with any image or side, and with nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import Row, Tabular, count
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems

FIRST_LINE = "autoseg splits 1"
VALIDATED, TRAINED, INNER, UNUSED = "v", "t", "i", "-"
_LEGEND = "v validated, t trained on, i trained on or used for choices (inner case), - unused"
_ROW = re.compile(r"([0-9a-f]{32})  ([vti-]+)(?:  (.*))?")
_HEX, _GROUP = 12, 4


@dataclass(frozen=True)
class SplitRow:
    """hash: of the decoded pixels. sides: a letter for each fold. name: of the case, "" if it was left out."""

    hash: str
    sides: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class SplitFile:
    """A file that was read. rows: sorted. made: how the folds were made, by whoever exported them."""

    id: str
    dataset: str
    made: str
    rows: tuple[SplitRow, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class SplitMatch(Tabular):
    """A file compared with a dataset.

    sides: case -> its letters, of the cases whose images are in the file. missing: lines of the file without an image here.
    extra: cases that are not in the file. changed: cases whose name is in the file with other pixels; they are neither missing
    nor extra. changed_sides: their letters by name.
    """

    id: str
    made: str
    folds: int
    sides: Mapping[str, str]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    changed_sides: Mapping[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the dataset holds the images of the file, and no others."""
        return not (self.missing or self.extra or self.changed)

    def summary(self) -> str:
        counts = {"missing": self.missing, "changed": self.changed, "extra": self.extra}
        listed = ", ".join(f"{len(cases)} {what}" for what, cases in counts.items())
        return f"folds {self.id}: {count(len(self.sides), 'case')} matched, {listed}"

    def to_rows(self) -> list[Row]:
        rows: list[Row] = [{"case": case, "state": "matched", "sides": sides} for case, sides in self.sides.items()]
        listed = (("missing", self.missing), ("changed", self.changed), ("extra", self.extra))
        return rows + [{"case": case, "state": state} for state, cases in listed for case in cases]

    def differences(self) -> list[str]:
        """One line for each difference."""
        lines = [f"missing: {text}" for text in self.missing]
        lines += [f"changed: {name} has other pixels than the image of this name in the file" for name in self.changed]
        return lines + [f"extra: {name} is not in the file" for name in self.extra]


def split_rows(splits: Splits, fingerprint: Fingerprint, *, names: bool = True) -> tuple[SplitRow, ...]:
    """The line of each case of the fingerprint, sorted. Cases that no fold uses are left out."""
    sides: dict[str, list[str]] = {case.case: [UNUSED] * len(splits.folds) for case in fingerprint.cases}
    for number, fold in enumerate(splits.folds):
        for letter, members in ((VALIDATED, fold.validation), (TRAINED, fold.train), (INNER, fold.inner)):
            for name in members:
                sides[name][number] = letter
    rows = (
        SplitRow(case.pixel_hash, "".join(sides[case.case]), case.case if names else "")
        for case in fingerprint.cases
        if set(sides[case.case]) != {UNUSED}
    )
    return tuple(sorted(rows, key=lambda row: (row.hash, row.sides, row.name)))


def splits_id(rows: Iterable[SplitRow]) -> str:
    """The id of folds, 12 hexadecimal digits, as "2f1c-9a40-77de"."""
    text = "".join(sorted(f"{row.hash} {row.sides}\n" for row in rows))
    digits = hashlib.sha256(text.encode()).hexdigest()[:_HEX]
    return "-".join(digits[start : start + _GROUP] for start in range(0, _HEX, _GROUP))


def to_text(splits: Splits, fingerprint: Fingerprint, *, names: bool = True) -> str:
    """The file's text. names: with the names of the cases, which messages of an import then use."""
    rows = split_rows(splits, fingerprint, names=names)
    head = {
        "id": splits_id(rows),
        "dataset": fingerprint.dataset.partition("_")[2],
        "made": " ".join(splits.reason.split()),
        "folds": str(len(splits.folds)),
        "cases": str(len(rows)),
        "hash": "XXH3-128 of the decoded pixels, as autoseg's documentation/planning.md says",
        "letters": f"one a fold: {_LEGEND}",
    }
    lines = [FIRST_LINE, *(f"{key}: {value}" for key, value in head.items()), ""]
    lines += [f"{row.hash}  {row.sides}" + (f"  {row.name}" if row.name else "") for row in rows]
    return "\n".join(lines) + "\n"


def is_split_file(path: Path) -> bool:
    """Whether the first line is that of such a file."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(FIRST_LINE) + 2).decode("ascii", "replace").splitlines()[:1] == [FIRST_LINE]
    except OSError:
        return False


def read_split_file(path: Path) -> SplitFile:
    """Raises AutosegError for a file that is none, is damaged, or does not have the content of its id."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AutosegError(f"{path} cannot be read: {reason}", "give a file of autoseg_splits --export") from error
    head_text, _, body = text.partition("\n\n")
    head = dict(line.partition(": ")[::2] for line in head_text.splitlines()[1:])
    rows, faults = [], []
    for number, line in enumerate(body.splitlines(), len(head_text.splitlines()) + 2):
        match = _ROW.fullmatch(line)
        if match is None:
            faults.append(f"line {number}: expected a hash, letters and a name, found {line[:60]!r}")
        else:
            rows.append(SplitRow(match[1], match[2], match[3] or ""))
    folds = {len(row.sides) for row in rows}
    if len(folds) > 1:
        faults.append(f"the lines have {' and '.join(map(str, sorted(folds)))} letters, one is expected for each fold")
    if not rows:
        faults.append("there are no cases")
    if faults:
        raise SeveralProblems(f"{path} is no list of folds:", faults, "export it again", shown=10)
    found = splits_id(rows)
    if head.get("id", "").strip() != found:
        given = head.get("id", "").strip() or "missing"
        raise AutosegError(
            f"{path} was changed: its id is {given}, but its lines have the id {found}",
            "get the file again; if you changed it on purpose, write the new id into it",
        )
    return SplitFile(id=found, dataset=head.get("dataset", ""), made=head.get("made", ""), rows=tuple(sorted(rows, key=_order)))


def match_cases(file: SplitFile, fingerprint: Fingerprint) -> SplitMatch:
    """Compare a file with a dataset by content. Copies of one image are matched by name, then in order."""
    lines: dict[str, list[SplitRow]] = defaultdict(list)
    for row in file.rows:
        lines[row.hash].append(row)
    cases: dict[str, list[str]] = defaultdict(list)
    for case in fingerprint.cases:
        cases[case.pixel_hash].append(case.case)
    sides: dict[str, str] = {}
    left: list[SplitRow] = []
    for content, rows in lines.items():
        left += _match_copies(rows, cases.get(content, []), sides)
    unmatched = {case.case for case in fingerprint.cases} - sides.keys()
    by_name = {row.name: row for row in left if row.name in unmatched}
    missing = [row for row in left if by_name.get(row.name) is not row]
    return SplitMatch(
        id=file.id,
        made=file.made,
        folds=len(file.rows[0].sides),
        sides=sides,
        missing=tuple(f"{row.name or 'an image'} ({row.hash[:12]})" for row in missing),
        extra=tuple(sorted(unmatched - by_name.keys())),
        changed=tuple(sorted(by_name)),
        changed_sides={name: row.sides for name, row in by_name.items()},
    )


def to_splits(match: SplitMatch, source: str, *, partial: bool = False) -> Splits:
    """The folds for the cases of the dataset. source: the file's name.

    Extra cases are in no fold. partial: missing cases are left out, and changed ones are matched by name; otherwise they are
    errors. Raises SeveralProblems that lists every difference.
    """
    if (match.missing or match.changed) and not partial:
        raise SeveralProblems(
            f"{source} (id {match.id}) lists other images than this dataset holds:",
            match.differences(),
            "get the missing and original images; or take what fits with --partial-splits: the folds then have another id",
        )
    sides = {**match.sides, **(match.changed_sides if partial else {})}

    def members(fold: int, letters: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, letter in sides.items() if letter[fold] in letters))

    folds = tuple(
        Fold(members(fold, TRAINED + INNER), members(fold, VALIDATED), members(fold, INNER)) for fold in range(match.folds)
    )
    counts = {"missing": match.missing, "changed": match.changed, "extra": match.extra}
    listed = ", ".join(f"{len(cases)} {what}" for what, cases in counts.items() if cases)
    reason = f"by content from {source}, id {match.id}" + (f" ({listed})" if listed else "") + f": {match.made}"
    return Splits(folds=folds, reason=reason, given=f"{source}, id {match.id}" + (f", {listed}" if listed else ""))


def _match_copies(rows: Sequence[SplitRow], names: Sequence[str], sides: dict[str, str]) -> list[SplitRow]:
    """Assign the lines of one image to the cases that show it; returns the lines that are left."""
    free, left = sorted(names), []
    for row in rows:
        if row.name in free:
            free.remove(row.name)
            sides[row.name] = row.sides
        else:
            left.append(row)
    for name in list(free):
        if not left:
            break
        sides[name] = left.pop(0).sides
    if len({row.sides for row in rows}) == 1:
        # One more copy of an image that the file has belongs where the others are.
        sides.update(dict.fromkeys(free, rows[0].sides))
    return left


def _order(row: SplitRow) -> tuple[str, str, str]:
    return row.hash, row.sides, row.name
