"""What has to be read with the numbers: which choices saw the scored cases, seeds, budget, start, limits of the tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoseg.comparison.protocol_checks import choices_note
from autoseg.comparison.results import DatasetResults, FoldResults
from autoseg.comparison.statistics import LEVEL, can_be_significant
from autoseg.fingerprint.metric_advice import advise_metrics
from autoseg.metrics.rules import is_defined
from autoseg.planning.time_budget import show_time
from autoseg.schema.comparison import Conditions, PairTest, Selection
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import count
from autoseg.schema.run import energy_text, sum_of_energy
from autoseg.support.files import read_artefact

# Bootstrap intervals of means of segmentation scores cover about what they say from this number of cases (arXiv 2409.17763).
_ENOUGH_UNITS = 50
TITLE = "To be read with the numbers"


def conditions(
    dataset_results: DatasetResults, units: int, tests: Sequence[PairTest], selection: Selection | None, *, unequal: bool
) -> Conditions:
    """units: number of cases or groups that are tested. unequal: whether the runs differ in what must be equal."""
    trained = dataset_results.trained
    runs = [run for model in trained.values() for run in model.folds.values()]
    published = tuple(name for name, model in trained.items() if any(run.record.pretrained for run in model.folds.values()))
    found = Conditions(
        saw_scored_cases=tuple(dict.fromkeys(choice for run in runs for choice in run.record.saw_scored_cases)),
        unknown=tuple(name for name in dataset_results.models if name not in trained),
        seeds=tuple(sorted({run.record.seed for run in runs})),
        unequal=unequal,
        random=tuple(name for name in trained if name not in published),
        published=published,
        unrecorded=tuple(name for several in _masks_with_open_choices(dataset_results) for name in several),
    )
    lines = {
        "choices": _choices(dataset_results, selection),
        "seeds": _seeds(found) + _other_seeds(dataset_results),
        "budget": _budget(runs),
        "start": _start(found),
        "tests": " ".join(_tests(dataset_results, units, tests)),
    }
    advice = _metrics(dataset_results)
    if advice:
        lines["metrics"] = advice
    if unequal:
        lines = {"runs": "The runs are not equal (see the notes), so their order does not rank the models.", **lines}
    if found.unknown:
        names = ", ".join(found.unknown)
        lines["other programs"] = f"{names}: which choices saw these cases, seed, budget and start are not known here."
    return Conditions(**{**vars(found), "lines": lines})


def _metrics(dataset_results: DatasetResults) -> str:
    """Which metrics to believe for this task; "" if Dice is enough, or if there is no fingerprint."""
    path = dataset_results.dataset.fingerprint
    if not path.exists():
        return ""
    return " ".join(f"{f'{one.of}: ' * bool(one.of)}{one}." for one in advise_metrics(read_artefact(path, Fingerprint)))


def _choices(dataset_results: DatasetResults, selection: Selection | None) -> str:
    (note,) = choices_note(dataset_results)
    text = f"Epoch and learning rate: {note}. Post-processing: {_postprocessing(dataset_results)}. "
    models = len(dataset_results.models)
    if models == 1:
        return text + "Model: there is one only."
    text += f"Model: to take the best of these {models} is a choice on the scored cases; its value is too high for new ones"
    if selection is None:
        return f"{text} (autoseg_find_best measures by how much)."
    nested = f"{100 * selection.nested_dice:.1f} %" if is_defined(selection.nested_dice) else "an unknown one"
    return (
        f"{text}; the choice of autoseg_find_best has the Dice {100 * selection.dice:.1f} % on the cases it was chosen on, "
        f"{nested} on cases that the choice did not see."
    )


def _masks_with_open_choices(dataset_results: DatasetResults) -> tuple[list[str], list[str]]:
    """Models whose scored masks have post-processing, and others of which it is not recorded."""
    predictions = {
        name: [run.prediction for run in model.folds.values()] for name, model in dataset_results.trained.items()
    }
    changed = [name for name, several in predictions.items() if any(one is not None and one.postprocessing for one in several)]
    return changed, [name for name, several in predictions.items() if None in several and name not in changed]


def _postprocessing(dataset_results: DatasetResults) -> str:
    """In words, of the masks that are scored."""
    changed, unknown = _masks_with_open_choices(dataset_results)
    if changed:
        return f"the scored masks of {', '.join(changed)} have some; whether its choice saw these cases is not recorded"
    return f"not recorded for {', '.join(unknown)}" if unknown else "the scored masks have none"


def _seeds(found: Conditions) -> str:
    if len(found.seeds) == 1:
        return (
            f"One training of each model and fold, with seed {found.seeds[0]}: no deviation, interval or test contains what "
            "another seed would change."
        )
    seeds = ", ".join(map(str, found.seeds))
    return f"Seeds {seeds}, one training of each model and fold: differences between seeds are mixed with those between folds."


def _other_seeds(dataset_results: DatasetResults) -> str:
    if not dataset_results.seeds:
        return ""
    several = ", ".join(f"{model} ({len(others) + 1})" for model, others in dataset_results.seeds.items())
    return (
        f" The table Seeds has the spread over several seeds of {several}; the tables of models, images, classes and "
        "objects have it next to each number; all else is of one seed."
    )


def _budget(runs: Sequence[FoldResults]) -> str:
    protocols = " and ".join(dict.fromkeys(run.record.protocol for run in runs))
    epochs, steps = _range([run.record.epochs_done for run in runs]), _range([run.record.steps for run in runs])
    text = f"Protocol {protocols}: {epochs} epochs and {steps} steps for each training"
    hours = show_time(sum(run.record.seconds for run in runs) / 3600)
    text += f", {hours} of training in all on {' and '.join(dict.fromkeys(run.record.device for run in runs))}"
    energy = energy_text(sum_of_energy(run.record.energy for run in runs))
    if energy:
        text += f", {energy}"
    early = sum(run.record.epochs_done < run.record.epochs_planned for run in runs)
    if early:
        text += f"; {early} of {count(len(runs), 'training')} ended before the planned epochs"
    return f"{text}. A longer training may change values and order."


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _start(found: Conditions) -> str:
    if not found.published:
        return "All trainings started from random weights; published weights may change values and order."
    published = f"Published weights: {', '.join(found.published)} (files: report.html, table of initial weights)"
    if not found.random:
        return f"{published}. What those were trained on differs between models, and so may what they gain by it."
    random = f"Random weights: {', '.join(found.random)}"
    return f"{random}. {published}. A difference between the two groups is also one of the start."


def _tests(dataset_results: DatasetResults, units: int, tests: Sequence[PairTest]) -> Iterator[str]:
    groups = dataset_results.spec.groups
    name = "group" if groups else "case"
    tested = "Tests and intervals" if tests else "Intervals"
    yield (
        f"{tested} draw {count(units, name)} of this dataset: they do not see other seeds, other hospitals or devices, and "
        "that the models of different folds share training images."
    )
    if not groups:
        yield "dataset.json names no groups: where one patient has several images, p is too small and intervals are too narrow."
    if units < _ENOUGH_UNITS:
        yield f"With fewer than {_ENOUGH_UNITS} {name}s such intervals are often too narrow."
    if tests and not can_be_significant(units, len(tests)) and all(test.p_adjusted >= LEVEL for test in tests):
        pairs = count(len(tests), "pair")
        yield f"With {count(units, name)} and {pairs} no difference can be significant at 5 %, however large."
