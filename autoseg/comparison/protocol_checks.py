"""Checks that runs can be ranked: the same cases, training budget and preprocessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict
from typing import Any

from autoseg.comparison.results import DatasetResults, FoldResults
from autoseg.models import registry
from autoseg.schema.run import choices_text
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import hash_text

# Fields of the training plan that do not affect the budget.
_NOT_COMPARED = ("learning_rates", "folds", "seed")


def protocol_differences(dataset_results: DatasetResults) -> list[str]:
    """Differences that make a ranking unfair, one line each with the names of the runs; empty if there are none."""
    runs = {f"{name}, fold {fold}": run for name, model in dataset_results.trained.items() for fold, run in model.folds.items()}
    lines = _fold_differences(dataset_results)
    lines += _differences("the data", runs, lambda run: run.plan.content_hash[:12])
    for fold in sorted({fold for model in dataset_results.trained.values() for fold in model.folds}):
        of_fold = {name: run for name, run in runs.items() if run.record.fold == fold}
        lines += _differences(f"the split of fold {fold}", of_fold, _describe_split)
    lines += _budget_differences(runs)
    lines += _differences("preprocessing", runs, _describe_preprocessing)
    free = {name: run for name, run in runs.items() if not _has_inner_size(run)}
    lines += _differences("the input size", free, _describe_input_size)
    lines += _differences("the surface tolerance", runs, lambda run: f"{run.scores.tolerance:g} {run.scores.unit}")
    return lines


def check_protocol(dataset_results: DatasetResults, allow_unequal: bool) -> tuple[str, ...]:
    """The differences as notes. Raises SeveralProblems if there are any and `allow_unequal` is False."""
    lines = protocol_differences(dataset_results)
    if lines and not allow_unequal:
        raise SeveralProblems(
            f"the runs on {dataset_results.dataset.name} are not equal, so a ranking would be unfair:",
            lines,
            "select equal runs with --models or --folds, train with one plan, or compare anyway with --allow-unequal",
        )
    return tuple(lines)


def choices_note(dataset_results: DatasetResults) -> list[str]:
    """Which choices of the trainings saw the scored cases, in one line; nothing without trainings."""
    choices = {
        f"{name}, fold {fold}": run.record.saw_scored_cases
        for name, model in dataset_results.trained.items()
        for fold, run in model.folds.items()
    }
    made = dict.fromkeys(choice for of_run in choices.values() for choice in of_run)
    runs = {choice: [name for name, of_run in choices.items() if choice in of_run] for choice in made}
    limits = [f"the {choice} of {_shorten(names)}" for choice, names in runs.items() if len(names) < len(choices)]
    text = choices_text(tuple(made))
    return [f"{text} ({'; '.join(limits)})" if limits else text] if choices else []


def noted_differences(dataset_results: DatasetResults) -> list[str]:
    """Differences that are allowed but noted: initial weights, devices, precision, --deterministic."""
    runs = {name: model.first for name, model in dataset_results.trained.items()}
    return [
        *_differences("the initial weights", runs, lambda run: run.record.pretrained or "random"),
        *_inner_sizes(runs),
        *_unequal_folds(dataset_results),
        *_differences("the learning rates tried", runs, _describe_rates),
        *_differences("the device", runs, lambda run: run.record.device),
        *_differences("the precision", runs, lambda run: run.record.precision),
        *_differences("--deterministic", runs, lambda run: "on" if run.record.deterministic else "off"),
    ]


def _unequal_folds(dataset_results: DatasetResults) -> list[str]:
    """Models whose folds did not start from the same weights."""
    starts = {
        name: {run.record.pretrained or "random" for run in model.folds.values()}
        for name, model in dataset_results.trained.items()
    }
    unequal = {name: " or ".join(sorted(several)) for name, several in starts.items() if len(several) > 1}
    return [f"the folds of {name} started from {several}" for name, several in unequal.items()]


def _fold_differences(dataset_results: DatasetResults) -> list[str]:
    by_model = {name: tuple(sorted(model.folds)) for name, model in dataset_results.trained.items()}
    if len(set(by_model.values())) < 2:
        return []
    shown = (f"{name} has {', '.join(map(str, folds))}" for name, folds in by_model.items())
    return [f"finished folds: {'; '.join(shown)}"]


def _budget_differences(runs: dict[str, FoldResults]) -> list[str]:
    """Differing fields of the training plan, batch sizes and learning-rate searches."""
    fields: dict[str, Callable[[FoldResults], Hashable]] = {
        name: (lambda run, name=name: str(asdict(run.plan.training)[name]))  # type: ignore[misc]
        for run in list(runs.values())[:1]
        for name in asdict(run.plan.training)
        if name not in (*_NOT_COMPARED, "augmentation")
    }
    fields["augmentation"] = _describe_augmentation(runs.values())
    fields["trained on"] = lambda run: _describe_extension(run.record.extended)
    fields["batch size"] = lambda run: run.model_plan.batch_size
    fields["the learning-rate search"] = _describe_search
    return [line for name, value in fields.items() for line in _differences(name, runs, value)]


def _describe_augmentation(runs: Iterable[FoldResults]) -> Callable[[FoldResults], str]:
    """Of each run those of its settings that differ between the runs."""
    settings = [asdict(run.plan.training.augmentation) for run in runs]
    names = [name for name in settings[0] if any(one[name] != settings[0][name] for one in settings)] if settings else []

    def describe(run: FoldResults) -> str:
        own = asdict(run.plan.training.augmentation)
        return ", ".join(f"{name} {_short(own[name])}" for name in names)

    return describe


def _short(value: Any) -> str:
    return " to ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else f"{value}"


def _describe_extension(epochs: tuple[int, ...]) -> str:
    return f"after epoch {', '.join(map(str, epochs))} (--extend)" if epochs else "never"


def _differences(what: str, runs: dict[str, FoldResults], value: Callable[[FoldResults], Hashable]) -> list[str]:
    """One line that names the runs that differ from most; empty if all are equal."""
    values = {name: value(run) for name, run in runs.items()}
    if len(set(values.values())) < 2:
        return []
    usual = Counter(values.values()).most_common(1)[0][0]
    runs_by_value: dict[Hashable, list[str]] = {}
    for name, value_of_run in values.items():
        if value_of_run != usual:
            runs_by_value.setdefault(value_of_run, []).append(name)
    others = "; ".join(f"{value_of_run} for {_shorten(names)}" for value_of_run, names in runs_by_value.items())
    return [f"{what}: {usual} for most, {others}"]


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _describe_split(run: FoldResults) -> str:
    fold = run.splits.folds[run.record.fold]
    return f"{len(fold.train)} training and {len(fold.validation)} held-out cases ({_digest(fold.train, fold.validation)})"


def _digest(train: tuple[str, ...], held_out: tuple[str, ...]) -> str:
    return hash_text(*sorted(train), "held out", *sorted(held_out))[:6]


def _describe_search(run: FoldResults) -> str:
    """Trials that diverged and rates that were added by the plan's rule are part of an equal search."""
    search = run.record.search
    return f"{search.epochs} epochs for each of {len(run.plan.training.learning_rates)} rates" if search else "none"


def _describe_rates(run: FoldResults) -> str:
    search = run.record.search
    return ", ".join(f"{trial.rate:g}" for trial in search.tried) if search else "none"


def _describe_preprocessing(run: FoldResults) -> str:
    """Without the size, which some architectures cannot choose."""
    config = run.plan.preprocessing[run.model_plan.preprocessing]
    if config.geometry == "resize":
        return f"whole images{', padded' if config.pad else ''}"
    return f"patches at {config.spacing} mm" if config.spacing is not None else f"patches at scale {config.scale:g}"


def _describe_input_size(run: FoldResults) -> str:
    config = run.plan.preprocessing[run.model_plan.preprocessing]
    height, width = config.size or run.model_plan.input_size
    return f"{height} x {width}"


def _has_inner_size(run: FoldResults) -> bool:
    """Whether the input has the only size at which the architecture works, so that nothing was chosen."""
    spec, plan = registry.find_spec(run.record.model), run.model_plan
    if spec is None or plan.variant not in [one.name for one in spec.variants]:
        return False
    side = spec.size_inside(plan.variant)
    return side is not None and plan.input_size == (side, side)


def _inner_sizes(runs: dict[str, FoldResults]) -> list[str]:
    fixed = [name for name, run in runs.items() if _has_inner_size(run)]
    sizes = sorted({_describe_input_size(run) for name, run in runs.items() if name not in fixed})
    others = [size for size in sizes if size not in {_describe_input_size(runs[name]) for name in fixed}]
    if not fixed or not others:
        return []
    own = sorted({_describe_input_size(runs[name]) for name in fixed})
    own_text, others_text = " and ".join(own), ", ".join(others)
    return [f"{_shorten(fixed)} work at {own_text} inside, so their input has this size; that of the others: {others_text}"]
