"""Types that functions of `autoseg.api` share, and the short forms they accept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PathLike = str | Path
DatasetId = str | int
Models = str | Sequence[str]
Folds = int | Iterable[int]
Setting = str | int | float | bool | None
Settings = Mapping[str, Setting]
_WORDS: dict[Setting, str] = {True: "true", False: "false", None: "none"}


def model_names(models: Models | None) -> list[str] | None:
    """One name or several as a list; None, for all, stays."""
    return [models] if isinstance(models, str) else None if models is None else list(models)


def fold_numbers(folds: Folds | None) -> list[int] | None:
    """One number or several as a list; None, for all, stays."""
    return [folds] if isinstance(folds, int) else None if folds is None else list(folds)


def setting_texts(settings: Settings | None) -> dict[str, str]:
    """The settings as `--set` takes them."""
    found = {}
    for key, value in (settings or {}).items():
        found[key] = _WORDS[value] if value is None or isinstance(value, bool) else str(value)
    return found
