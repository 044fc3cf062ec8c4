"""Names that hold a patient, such as patient001_frame01: an expression that groups them, for the user to confirm or deny."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.support.errors import AutosegError
from autoseg.support.patterns import compiled, search

# What the user gives instead of an expression if each case is of another patient.
NO_GROUPS = "none"
_WHAT, _EXAMPLE = "the expression for groups", r"for example (patient\d+)"
_WORDS = (
    "patient|subject|subj|sub|pat|person|volunteer|animal|mouse|rat|donor|case|study|exam|video|vid|sequence|seq|clip|volume|vol"
)
# From certain to vague. Each must leave a part of the name that tells the images of a group apart.
_PATTERNS = (
    rf"((?i:{_WORDS})[-_ ]?\d+)",
    r"((?:^|(?<=[/_\- ]))[A-Za-z]{0,3}\d+)[-_ ]+[A-Za-z]*[-_ ]?\(?\d+\)?$",
)
_FEWEST_GROUPS = 2
# Fraction of the images that are in a group with others.
_SHARE_TOGETHER = 0.5
# One group of more than this fraction is a prefix of the dataset, no patient.
LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class SuggestedGroups:
    """pattern: a regular expression with one group, for --groups. groups: how many it finds."""

    pattern: str
    groups: int


def suggest_groups(names: Sequence[str]) -> SuggestedGroups | None:
    """The first expression that puts most images into groups of several; None if the names do not look like that."""
    for pattern in _PATTERNS:
        matches = [re.search(pattern, name) for name in names]
        found = [match for match in matches if match is not None]
        if not names or len(found) < len(names):
            continue
        # The rest of a name must tell the images of a group apart.
        if any(match[1] == match.string for match in found):
            continue
        sizes = Counter(match[1] for match in found)
        together = sum(size for size in sizes.values() if size > 1)
        is_plausible = len(sizes) >= _FEWEST_GROUPS and max(sizes.values()) <= LARGEST_SHARE * len(names)
        if is_plausible and together >= _SHARE_TOGETHER * len(names):
            return SuggestedGroups(_shorter(pattern, found), len(sizes))
    return None


def suggestion_text(suggested: SuggestedGroups, dataset: str) -> str:
    """What to tell the user."""
    command = f"autoseg_plan_and_preprocess {dataset} --groups"
    return (
        f"the names look like several images of one patient ({suggested.groups} groups): confirm with "
        f"{command} '{suggested.pattern}', which keeps them together, or deny with {command} {NO_GROUPS}"
    )


def find_groups(expression: str, names: Sequence[str]) -> dict[str, str | None]:
    """Name -> what the group of an expression matches in it, None where it matches nothing.

    Raises AutosegError for an expression that is invalid, does not have exactly one group, or takes too long.
    """
    if compiled(expression, _WHAT, _EXAMPLE).groups != 1:
        raise AutosegError(f"the expression for groups, {expression!r}, needs exactly one group in ()", _EXAMPLE)
    return {
        name: match[1] if match is not None else None
        for name, match in zip(names, search(expression, names, _WHAT, _EXAMPLE), strict=True)
    }


def _shorter(pattern: str, found: Sequence[re.Match[str]]) -> str:
    """An expression that is easier to read, such as (patient\\d+), if it finds the same groups."""
    beginnings = {re.sub(r"\d+$", "", match[1]) for match in found}
    if len(beginnings) != 1 or not (beginning := beginnings.pop()):
        return pattern
    simple = rf"({re.escape(beginning)}\d+)".replace("\\ ", " ").replace("\\-", "-")
    same = all((match := re.search(simple, one.string)) is not None and match[1] == one[1] for one in found)
    return simple if same else pattern
