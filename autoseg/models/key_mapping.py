"""Maps official tensor names to ours with a table of patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoseg.models.base import StateDictAdapter


def rename_keys(adapter: StateDictAdapter, table: Sequence[tuple[str, str]]) -> None:
    """Assign every remaining tensor whose full name matches a pattern of `table` to the row's replacement (`re.Match.expand`).

    The first matching row counts. Names without a match remain, so a file of another network is still detected.
    """
    rows = [(re.compile(pattern), replacement) for pattern, replacement in table]
    for name in adapter.remaining:
        for pattern, replacement in rows:
            match = pattern.fullmatch(name)
            if match is not None:
                adapter.assign(match.expand(replacement), name)
                break


def drop_matching(adapter: StateDictAdapter, table: Sequence[tuple[str, str]]) -> None:
    """Drop every remaining tensor whose full name matches a pattern of `table`, with the row's reason."""
    rows = [(re.compile(pattern), reason) for pattern, reason in table]
    for name in adapter.remaining:
        for pattern, reason in rows:
            if pattern.fullmatch(name) is not None:
                adapter.drop(name, reason)
                break
