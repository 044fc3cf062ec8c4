"""`Training.selection`: on which cases a training makes its choices, and which choices saw cases that are scored."""

from __future__ import annotations

from autoseg.schema.plan import Fold, Plan, Selection, Splits
from autoseg.schema.run import Choice, RateSearch
from autoseg.support.errors import AutosegError


def training_split(fold: Fold, selection: Selection, dataset: str) -> Fold:
    """What a training trains on and validates with: with selection "inner" the held-out cases stay unseen.

    Raises AutosegError if the fold has no inner cases.
    """
    if selection != "inner":
        return fold
    if not fold.inner:
        raise AutosegError(
            f"training.selection is inner, but the splits of {dataset} have no inner cases",
            f"autoseg_plan_and_preprocess {dataset} adds them (not where all training cases are of one patient)",
        )
    inner = set(fold.inner)
    return Fold(tuple(name for name in fold.train if name not in inner), fold.inner)


def choices_made(plan: Plan, search: RateSearch | None, splits: Splits, fold: int) -> tuple[Choice, ...]:
    """The choices that were made on cases this fold is scored on, all or some of them.

    Learning rates are compared on cases of one fold. Its inner cases are scored in other folds.
    """
    epoch: tuple[Choice, ...] = ("epoch",) if plan.training.selection == "held_out" else ()
    if search is None:
        return epoch
    searched = splits.folds[search.fold]
    cases = searched.inner if search.cases == "inner" else searched.validation
    return (*epoch, "learning rate") if set(cases) & set(splits.folds[fold].validation) else epoch
