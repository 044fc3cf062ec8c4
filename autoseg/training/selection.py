"""`Training.selection`: on which cases a training makes its choices, and which choices saw cases that are scored."""

from __future__ import annotations

from autoseg.schema.plan import Fold, Plan, Selection, Splits
from autoseg.schema.run import Choice, RateSearch
from autoseg.support.errors import AutosegError


def training_split(splits: Splits, number: int, selection: Selection, dataset: str) -> Fold:
    """What a training of a fold trains on and validates with: with the selections "inner" and "next_fold" its held-out cases
    stay unseen.

    Raises AutosegError if the fold has no inner cases, or there is no other fold, or nothing is left to train on.
    """
    fold = splits.folds[number]
    if selection == "next_fold":
        return _without_next_fold(splits, number, dataset)
    if selection != "inner":
        return fold
    if not fold.inner:
        raise AutosegError(
            f"training.selection is inner, but the splits of {dataset} have no inner cases",
            f"autoseg_plan_and_preprocess {dataset} adds them (not where all training cases are of one patient)",
        )
    inner = set(fold.inner)
    return Fold(tuple(name for name in fold.train if name not in inner), fold.inner)


def next_fold(splits: Splits, number: int) -> int:
    """The fold whose held-out cases choose the epoch with the selection "next_fold"."""
    return (number + 1) % len(splits.folds)


def _without_next_fold(splits: Splits, number: int, dataset: str) -> Fold:
    fold, choosing = splits.folds[number], splits.folds[next_fold(splits, number)].validation
    chosen = tuple(name for name in choosing if name in set(fold.train))
    rest = tuple(name for name in fold.train if name not in set(chosen))
    if not chosen or not rest:
        raise AutosegError(
            f"training.selection is next_fold, but the next of the {len(splits.folds)} folds of {dataset} leaves nothing to "
            f"{'choose on' if not chosen else 'train on'}",
            "use three folds or more, or --set training.selection=inner",
        )
    return Fold(rest, chosen)


def choices_made(plan: Plan, search: RateSearch | None, splits: Splits, fold: int) -> tuple[Choice, ...]:
    """The choices that were made on cases this fold is scored on, all or some of them.

    Learning rates are compared on cases of one fold. Its inner cases are scored in other folds.
    """
    epoch: tuple[Choice, ...] = ("epoch",) if plan.training.selection == "held_out" else ()
    if search is None:
        return epoch
    searched = splits.folds[search.fold]
    cases = searched.inner if search.cases == "inner" else searched.validation
    if search.cases == "next_fold":
        cases = splits.folds[next_fold(splits, search.fold)].validation
    return (*epoch, "learning rate") if set(cases) & set(splits.folds[fold].validation) else epoch
