"""Leave-one-site-out folds: each fold holds out all cases of one site, scanner or whatever a column or a name tells.

    --splits by=site --metadata cases.csv      a column of a CSV about the cases
    --splits 'by=case=(berlin|bern)'           the part of a case's name that matches
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from autoseg.io.metadata import NOT_GIVEN, Metadata
from autoseg.planning.splits import check_splits
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Fold, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.patterns import search

PREFIX, _NAME = "by=", "case="
# More sites than that are probably numbers, such as ages.
_MOST = 30
_SHOWN = 5


def make_site_splits(fingerprint: Fingerprint, spec: DatasetSpec, asked: str, metadata: Metadata | None) -> Splits:
    """One fold for each value, in their order. asked: "by=COLUMN" or "by=case=PATTERN".

    Raises AutosegError for an unknown column, a case without a value, two spellings of a value, and one or too many values,
    SeveralProblems for a patient or a picture in two of them.
    """
    by = asked.removeprefix(PREFIX)
    cases = [case.case for case in fingerprint.cases]
    values = _of_names(cases, by.removeprefix(_NAME)) if by.startswith(_NAME) else _of_column(cases, spec, by, metadata)
    without = [case for case in cases if values[case] == NOT_GIVEN]
    if without:
        more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
        raise AutosegError(
            f"{len(without)} of {len(cases)} cases have no {by}: {', '.join(without[:_SHOWN])}{more}",
            "give each case a value, or leave these cases out of the dataset",
        )
    counts = Counter(values.values())
    if not 2 <= len(counts) <= _MOST:
        raise AutosegError(
            f"{by} has {len(counts)} different values; leaving out one at a time needs 2 to {_MOST}",
            "choose a column such as site or scanner, with a name for each",
        )
    names = sorted(counts)
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(" ".join(name.casefold().split()), []).append(name)
    alike = [" and ".join(several) for several in spellings.values() if len(several) > 1]
    if alike:
        raise AutosegError(
            f"{by} has values that differ in upper and lower case or spaces only: {'; '.join(alike)}",
            "write each in one way; as two values they would be on both sides of a fold",
        )
    folds = tuple(
        Fold(tuple(case for case in cases if values[case] != name), tuple(case for case in cases if values[case] == name))
        for name in names
    )
    listed = ", ".join(f"{number}: {name} ({counts[name]})" for number, name in enumerate(names))
    splits = Splits(folds=folds, reason=f"leave one {by} out; each fold holds out the cases of one: {listed}", given=asked)
    remedy = "correct the values, or leave one of the two cases out of the dataset"
    try:
        check_splits(splits, fingerprint, spec)
    except SeveralProblems as error:
        problems = [problem for problem in error.problems if "inner" not in problem]
        raise SeveralProblems(f"a patient or a picture is in two values of {by}:", problems, remedy) from error
    return splits


def _of_names(cases: list[str], pattern: str) -> dict[str, str]:
    matches = search(pattern, cases, "the pattern of --splits by=case=", "for example by=case=(berlin|bern)")
    # The first group, or all of it without one.
    texts = [(match[1] if len(match) > 1 else match[0]) if match else "" for match in matches]
    return {case: text or NOT_GIVEN for case, text in zip(cases, texts, strict=True)}


def _of_column(cases: list[str], spec: DatasetSpec, column: str, metadata: Metadata | None) -> Mapping[str, str]:
    if metadata is None:
        raise AutosegError(
            f"the {column} of each case is not known",
            f"add --metadata FILE, a CSV with the columns case and {column}; or take it from the names: "
            "--splits 'by=case=(berlin|bern)'",
        )
    if column not in metadata.columns:
        known = ", ".join(metadata.columns) or "none"
        raise AutosegError(f"{metadata.file} has no column {column!r}", f"its columns: {known}")
    return metadata.values(column, cases, spec.file_ending)
