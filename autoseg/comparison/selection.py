"""The choice of autoseg_find_best with the models it was made from."""

from __future__ import annotations

from autoseg.prediction.model_selection import FILE, read_best
from autoseg.schema.comparison import Selection
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset


def read_selection(dataset: Dataset) -> tuple[Selection | None, tuple[str, ...]]:
    """The dataset's choice, None if there is none or it is out of date; and notes that say why."""
    if not (dataset.results / FILE).is_file():
        return None, ()
    try:
        choice = read_best(dataset)
    except AutosegError as error:
        return None, (f"the choice of autoseg_find_best is left out: {error.problem}",)
    return Selection(
        models=choice.models,
        postprocessing={name: str(steps) for name, steps in choice.postprocessing.items()},
        candidates=len(choice.candidates),
        dice=choice.dice,
        nested_dice=choice.nested_dice,
        note=" ".join(choice.dice_notes()),
    ), ()
