"""Regular expressions of users, searched under a time limit: some, such as (a+)+b, take years on a short name."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from autoseg.support.errors import AutosegError

# Of processor time, so that a busy machine changes nothing. Searching usual names takes a thousandth of it.
_SECONDS, _SECONDS_PER_TEXT = 1.0, 5e-5
# On the clock, if the process cannot limit itself.
_MOST_SECONDS = 60.0
# Python holds its lock while it searches, so no thread can stop a search. A process can.
_SEARCH = """
import json, re, signal, sys
expression, texts, seconds = json.load(sys.stdin)
if hasattr(signal, "setitimer"):
    signal.setitimer(signal.ITIMER_PROF, seconds)
pattern = re.compile(expression)
matches = (pattern.search(text) for text in texts)
json.dump([None if match is None else [match[0], *match.groups()] for match in matches], sys.stdout)
"""


def compiled(expression: str, what: str, example: str) -> re.Pattern[str]:
    """The compiled expression. what: its name in messages. Raises AutosegError if it is invalid."""
    try:
        return re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise AutosegError(f"{what}, {_short(expression)}, is not valid: {error}", example) from error


def search(expression: str, texts: Sequence[str], what: str, example: str) -> list[list[str | None] | None]:
    """For each text the first match, then its groups; None without a match.

    Raises AutosegError for an invalid expression, and for one that does not end within about a second.
    """
    compiled(expression, what, example)
    content = json.dumps([expression, list(texts), _SECONDS + _SECONDS_PER_TEXT * len(texts)])
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _SEARCH]
    try:
        result = subprocess.run(command, input=content, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        result = None
    if result is None or result.returncode == -getattr(signal, "SIGPROF", 0):
        raise AutosegError(
            f"{what}, {_short(expression)}, takes too long: a repetition within a repetition, as in (a+)+, tries all ways",
            f"use one repetition, {example}",
        )
    if result.returncode:
        raise AutosegError(f"{what}, {_short(expression)}, cannot be searched: {result.stderr.strip()[-200:]}", example)
    matches: list[list[str | None] | None] = json.loads(result.stdout)
    return matches


def _short(expression: str) -> str:
    return repr(expression if len(expression) <= 80 else expression[:77] + "...")
