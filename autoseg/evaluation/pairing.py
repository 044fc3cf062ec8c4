"""Which prediction belongs to which reference: the same name, whatever the suffix."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from autoseg.io import is_image, stem_of
from autoseg.support.errors import AutosegError, SeveralProblems


@dataclass(frozen=True, slots=True)
class Pair:
    """The two masks of one case."""

    case: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Pairing:
    """pairs: by case. extra: predictions without a reference, which are not scored."""

    pairs: tuple[Pair, ...]
    extra: tuple[Path, ...]


def pair_masks(predictions: Path, references: Path, cases: Collection[str] | None = None) -> Pairing:
    """Match two folders' masks by name. cases: score only these, by default every reference.

    Raises SeveralProblems listing all cases that lack a prediction (or, where cases were named, a reference), and
    AutosegError for a folder that is missing or holds no masks.
    """
    predicted, referred = _masks(predictions), _masks(references)
    wanted = sorted(referred if cases is None else set(cases))
    unknown = [f"{case}: no reference in {references}" for case in wanted if case not in referred]
    missing = [f"{case}: no prediction in {predictions}" for case in wanted if case not in predicted]
    if unknown or missing:
        raise SeveralProblems(
            f"{len(unknown) + len(missing)} masks are missing for {len(wanted)} cases",
            unknown + missing,
            _remedy(sorted(set(predicted) - set(referred))),
        )
    pairs = tuple(Pair(case, predicted[case], referred[case]) for case in wanted)
    return Pairing(pairs, tuple(path for case, path in sorted(predicted.items()) if case not in referred))


def _masks(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise AutosegError(f"{folder} is not a folder", "give the folder that holds the masks")
    found: dict[str, Path] = {}
    twice = []
    for path in sorted(folder.iterdir()):
        if is_image(path):
            other = found.setdefault(stem_of(path), path)
            if other is not path:
                twice.append(f"{other.name} and {path.name}")
    if twice:
        raise SeveralProblems(f"{folder} holds several masks of one case:", twice, "keep one of each")
    if not found:
        raise AutosegError(f"{folder} holds no masks", "give the folder that holds the masks themselves")
    return found


def _remedy(strangers: list[str]) -> str:
    advice = "predict the missing cases; a prediction must have its reference's name (the suffix may differ)"
    return f"{advice}. Predictions whose name no reference has: {', '.join(strangers[:5])}" if strangers else advice
