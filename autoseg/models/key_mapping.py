"""Official names into ours by a table of patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoseg.models.base import StateDictAdapter


def rename_keys(adapter: StateDictAdapter, table: Sequence[tuple[str, str]]) -> None:
    """Give every tensor still left whose whole name matches a pattern of `table` to the name its replacement spells.

    The first matching row counts. Names that match none stay left, so a foreign file is still recognised as one.
    """
    rows = [(re.compile(pattern), replacement) for pattern, replacement in table]
    for name in adapter.left:
        for pattern, replacement in rows:
            match = pattern.fullmatch(name)
            if match is not None:
                adapter.give(match.expand(replacement), name)
                break


def drop_matching(adapter: StateDictAdapter, table: Sequence[tuple[str, str]]) -> None:
    """Drop every tensor still left whose whole name matches a pattern of `table`, with the reason that stands beside."""
    rows = [(re.compile(pattern), reason) for pattern, reason in table]
    for name in adapter.left:
        for pattern, reason in rows:
            if pattern.fullmatch(name) is not None:
                adapter.drop(name, reason)
                break
