"""Masks of other programs next to the trained models: a folder of scored masks, or nnU-Net's results folder of a model.

    <folder>/*.png, scores.json                    masks of any program, scored by autoseg_evaluate
    <folder>/fold_0/validation/*.png, fold_1/...   what nnU-Net v2 leaves of its trainings; scored here; nothing is written
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.evaluation.pairing import masks_by_case
from autoseg.io.raw_dataset import RawDataset
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Splits
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, fold_folders

SCORES = "scores.json"
_NAMED = 3


def validation_folders(folder: Path) -> dict[int, Path]:
    """Fold -> folder of its validation masks, as nnU-Net v2 writes them; empty if there are none."""
    folders = {fold: path / "validation" for fold, path in fold_folders(folder).items()}
    return {fold: path for fold, path in folders.items() if path.is_dir()}


def scores_of(
    name: str, folder: Path, dataset: Dataset, spec: DatasetSpec, splits: Splits, folds: Collection[int] | None
) -> dict[int, Scores]:
    """Scores of each of nnU-Net's folds, or of all masks of another program as fold 0.

    folds: only these. Raises SeveralProblems if nnU-Net's folds held out other cases than the trained models', and AutosegError
    if the classes differ or the masks are not scored.
    """
    of_folds = {fold: path for fold, path in validation_folders(folder).items() if folds is None or fold in folds}
    if (folder / SCORES).is_file() or not of_folds:
        scores = {0: read_artefact(folder / SCORES, Scores, f"autoseg_evaluate {folder} REFERENCES -o {folder}")}
    else:
        _check_folds(name, of_folds, splits)
        references = RawDataset.open(dataset).references
        scores = {
            fold: evaluate_folders(
                path, references, spec, cases=splits.folds[fold].validation, write=False, probabilities=False
            )
            for fold, path in of_folds.items()
        }
    classes = list(spec.label_scheme().foreground)
    for one in scores.values():
        if list(one.classes) != classes:
            raise AutosegError(
                f"{folder / SCORES} has the classes {', '.join(one.classes)}, the trained models {', '.join(classes)}",
                "score the masks against the dataset's own labels (labelsTr)",
            )
    return scores


def _check_folds(name: str, of_folds: Mapping[int, Path], splits: Splits) -> None:
    problems = []
    for fold, path in of_folds.items():
        if fold >= len(splits.folds):
            problems.append(f"fold {fold}: the trained models have {len(splits.folds)} folds")
            continue
        expected, present = set(splits.folds[fold].validation), masks_by_case(path).keys()
        if expected != present:
            missing, extra = sorted(expected - present), sorted(present - expected)
            parts = [f"without {_listed(missing)}"] * bool(missing) + [f"with {_listed(extra)}"] * bool(extra)
            problems.append(f"fold {fold}: {' and '.join(parts)}")
    if problems:
        raise SeveralProblems(
            f"{name} held out other cases than the trained models, so that they cannot be compared:",
            problems,
            "train both on the same folds: autoseg_plan_and_preprocess DATASET --splits splits_final.json takes nnU-Net's",
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
