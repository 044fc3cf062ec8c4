"""Types of parameters of `autoseg.api`, and conversions of their short forms."""

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
    """Names as a list; None (all) is returned unchanged."""
    return [models] if isinstance(models, str) else None if models is None else list(models)


def fold_numbers(folds: Folds | None) -> list[int] | None:
    """Numbers as a list; None (all) is returned unchanged."""
    return [folds] if isinstance(folds, int) else None if folds is None else list(folds)


def output_folder(output: PathLike | None) -> Path | None:
    """The folder to write to, None unchanged. Raises AutosegError if it holds images or masks of a raw dataset."""
    from autoseg.io.raw_dataset import refuse_raw_folder

    if output is None or output == "":
        return None
    refuse_raw_folder(Path(output))
    return Path(output)


def setting_texts(settings: Settings | None) -> dict[str, str]:
    """Settings as texts, in the form of `--set`."""
    texts = {}
    for key, value in (settings or {}).items():
        texts[key] = _WORDS[value] if value is None or isinstance(value, bool) else str(value)
    return texts
