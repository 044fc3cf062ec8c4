"""Whether runs may be ranked against each other: the same cases, the same budget, the same preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import asdict

from autoseg.comparison.results import DatasetResults, FoldResults
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import hash_text

# Fields of a training that do not spend anything: candidates, and how many folds the splits have.
_ASIDE = ("learning_rates", "folds", "seed")


def inequalities(dataset_results: DatasetResults) -> list[str]:
    """In what the runs differ that makes a ranking unfair, a line each, by name; empty where they are equal."""
    runs = {f"{name}, fold {fold}": run for name, model in dataset_results.trained.items() for fold, run in model.folds.items()}
    lines = _folds(dataset_results)
    lines += _differing("the data", runs, lambda run: run.plan.content_hash[:12])
    for fold in sorted({fold for model in dataset_results.trained.values() for fold in model.folds}):
        of_fold = {name: run for name, run in runs.items() if run.record.fold == fold}
        lines += _differing(f"the split of fold {fold}", of_fold, _split)
    lines += _budget(runs)
    lines += _differing("preprocessing", runs, _preparation)
    lines += _differing("the surface tolerance", runs, lambda run: f"{run.scores.tolerance:g} {run.scores.unit}")
    return lines


def check(dataset_results: DatasetResults, allow_unequal: bool) -> tuple[str, ...]:
    """The inequalities as notes. Raises SeveralProblems where there are any and they are not allowed."""
    lines = inequalities(dataset_results)
    if lines and not allow_unequal:
        raise SeveralProblems(
            f"the runs on {dataset_results.dataset.name} are not equal, and a ranking would mean little:",
            lines,
            "choose with --models or --folds, train under one plan, or compare all the same with --allow-unequal",
        )
    return tuple(lines)


def differences_in_start(dataset_results: DatasetResults) -> list[str]:
    """What is not unfair but should be read beside the numbers: pretrained weights, devices, precision."""
    runs = {name: model.first for name, model in dataset_results.trained.items()}
    return [
        *_differing("the starting weights", runs, lambda run: run.record.pretrained or "random"),
        *_differing("the device", runs, lambda run: run.record.device),
        *_differing("the precision", runs, lambda run: run.record.precision),
    ]


def _folds(dataset_results: DatasetResults) -> list[str]:
    by_model = {name: tuple(sorted(model.folds)) for name, model in dataset_results.trained.items()}
    if len(set(by_model.values())) < 2:
        return []
    shown = (f"{name} has {', '.join(map(str, folds))}" for name, folds in by_model.items())
    return [f"finished folds: {'; '.join(shown)}"]


def _budget(runs: dict[str, FoldResults]) -> list[str]:
    """Each field of the training plan that differs, and the batch."""
    fields: dict[str, Callable[[FoldResults], Hashable]] = {
        name: (lambda run, name=name: str(asdict(run.plan.training)[name]))  # type: ignore[misc]
        for run in list(runs.values())[:1]
        for name in asdict(run.plan.training)
        if name not in _ASIDE
    }
    fields["batch size"] = lambda run: run.model_plan.batch_size
    fields["the search for a learning rate"] = lambda run: f"{run.record.search.steps} steps" if run.record.search else "none"
    return [line for name, value in fields.items() for line in _differing(name, runs, value)]


def _differing(what: str, runs: dict[str, FoldResults], value: Callable[[FoldResults], Hashable]) -> list[str]:
    """One line that names the runs that are not like most."""
    values = {name: value(run) for name, run in runs.items()}
    if len(set(values.values())) < 2:
        return []
    usual = Counter(values.values()).most_common(1)[0][0]
    odd: dict[Hashable, list[str]] = {}
    for name, found in values.items():
        if found != usual:
            odd.setdefault(found, []).append(name)
    others = "; ".join(f"{found} for {_shown(names)}" for found, names in odd.items())
    return [f"{what}: {usual} for most, {others}"]


def _shown(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _split(run: FoldResults) -> str:
    fold = run.splits.folds[run.record.fold]
    return f"{len(fold.train)} training and {len(fold.validation)} held-out cases ({_digest(fold.train, fold.validation)})"


def _digest(train: tuple[str, ...], held_out: tuple[str, ...]) -> str:
    return hash_text(*sorted(train), "held out", *sorted(held_out))[:6]


def _preparation(run: FoldResults) -> str:
    preparation = run.plan.preprocessing[run.model_plan.preprocessing]
    if preparation.geometry == "resize" and preparation.size is not None:
        return f"whole images at {preparation.size[0]} x {preparation.size[1]}"
    scale = f"{preparation.spacing} mm" if preparation.spacing is not None else f"scale {preparation.scale:g}"
    return f"patches of {run.model_plan.input_size[0]} x {run.model_plan.input_size[1]} at {scale}"
