"""Errors that a user can cause and fix. Everything else is a bug of autoseg and keeps its traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class AutosegError(Exception):
    """A mistake that the user can fix. The message says what is wrong, where, and what to do.

    Commands print it without a traceback and exit with code 2.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}\n  -> {remedy}" if remedy else problem)

    def __reduce__(self) -> tuple[type[AutosegError], tuple[str, str]]:
        # Exceptions are rebuilt from their arguments when they cross a process boundary.
        return type(self), (self.problem, self.remedy)


class SeveralProblems(AutosegError):
    """All faults of one pass, so that a dataset can be fixed at once.

    `problems` keeps every line; the message shows at most `shown` of them.
    """

    def __init__(self, headline: str, problems: Iterable[str], remedy: str = "", shown: int = 50) -> None:
        self.headline = headline
        self.problems: Sequence[str] = tuple(problems)
        self.shown = shown
        lines = [f"  - {line}" for line in self.problems[:shown]]
        if len(self.problems) > shown:
            lines.append(f"  ... and {len(self.problems) - shown} more")
        super().__init__("\n".join([headline, *lines]), remedy)

    def __reduce__(self) -> tuple[type[SeveralProblems], tuple[str, Sequence[str], str, int]]:  # type: ignore[override]
        return type(self), (self.headline, self.problems, self.remedy, self.shown)


class UnsavedResult(AutosegError):
    """A result was computed, but could not be written. result: what `autoseg.api` would have returned."""

    def __init__(self, problem: str, remedy: str, result: Any) -> None:
        super().__init__(problem, remedy)
        self.result = result

    def __reduce__(self) -> tuple[type[UnsavedResult], tuple[str, str, Any]]:  # type: ignore[override]
        return type(self), (self.problem, self.remedy, self.result)


@contextmanager
def keep_result(result: Any) -> Iterator[None]:
    """Raise an AutosegError of the block, which writes `result`, as an UnsavedResult."""
    try:
        yield
    except AutosegError as error:
        raise UnsavedResult(error.problem, error.remedy, result) from error
