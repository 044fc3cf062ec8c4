"""Pairs of prediction and reference: the same name, any suffix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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


def pair_masks(
    predictions: Path | Mapping[str, Path], references: Path | Mapping[str, Path], cases: Collection[str] | None = None
) -> Pairing:
    """Match masks by name. predictions, references: a folder, or case -> mask. cases: only these; by default all references.

    Raises SeveralProblems that lists all cases without a prediction (or, of `cases`, without a reference), and AutosegError
    for a folder that is missing or has no masks.
    """
    predicted = masks_by_case(predictions) if isinstance(predictions, Path) else predictions
    expected = masks_by_case(references) if isinstance(references, Path) else references
    names = sorted(expected if cases is None else set(cases))
    where = references if isinstance(references, Path) else "the dataset"
    unknown = [f"{case}: no reference in {where}" for case in names if case not in expected]
    source = predictions if isinstance(predictions, Path) else "the given masks"
    missing = [f"{case}: no prediction in {source}" for case in names if case not in predicted]
    if unknown or missing:
        raise SeveralProblems(
            f"{len(unknown) + len(missing)} masks are missing for {len(names)} cases",
            unknown + missing,
            _remedy(sorted(set(predicted) - set(expected))),
        )
    pairs = tuple(Pair(case, predicted[case], expected[case]) for case in names)
    return Pairing(pairs, tuple(path for case, path in sorted(predicted.items()) if case not in expected))


def masks_by_case(folder: Path) -> dict[str, Path]:
    """Raises AutosegError for a folder that is missing or has no masks, SeveralProblems for several masks of one case."""
    if not folder.is_dir():
        raise AutosegError(f"{folder} is not a folder", "give the folder that contains the mask files")
    masks: dict[str, Path] = {}
    duplicates = []
    for path in sorted(folder.iterdir()):
        if is_image(path):
            other = masks.setdefault(stem_of(path), path)
            if other is not path:
                duplicates.append(f"{other.name} and {path.name}")
    if duplicates:
        raise SeveralProblems(f"{folder} has several masks of one case:", duplicates, "keep one mask for each case")
    if not masks:
        raise AutosegError(f"{folder} has no masks", "give the folder that contains the mask files")
    return masks


def _remedy(unmatched: list[str]) -> str:
    advice = "predict the missing cases; a prediction must have its reference's name (the suffix may differ)"
    return f"{advice}. Predictions without a reference of the same name: {', '.join(unmatched[:5])}" if unmatched else advice
