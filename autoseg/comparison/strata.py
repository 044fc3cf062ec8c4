"""Strata of cases: easy and hard for a reference model, or by a column of the fingerprint or of a CSV; every model is scored on
each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autoseg.comparison import statistics
from autoseg.comparison.paired_scores import dice_of_cases, easy_and_hard_cases, has_foreground, mean_over_classes
from autoseg.comparison.results import DatasetResults
from autoseg.io.metadata import NOT_GIVEN, Metadata, numbers
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import Interval, Stratification, Stratum, StratumScore, WorstGroup
from autoseg.schema.fingerprint import CaseFingerprint, Fingerprint
from autoseg.schema.scores import CaseScore
from autoseg.support.errors import AutosegError
from autoseg.support.patterns import search

EASY, HARD = "easy", "hard"
# A group of fewer cases is shown, but is not called the worst.
FEWEST = 5
_HINT = "give a pattern, such as case=(benign|malignant)"
_NUMBERS: dict[str, tuple[str, Callable[[CaseFingerprint], float]]] = {
    "object_size": ("fraction of the image that is foreground", lambda case: _foreground(case) / (case.size[0] * case.size[1])),
    "objects": ("number of objects", lambda case: sum(one.objects for one in case.classes.values())),
    "thickness": ("thickness of the thinnest class in the image, in pixels", lambda case: _thinnest(case)),
    "image_size": ("pixels of the image", lambda case: case.size[0] * case.size[1]),
    "border": ("fraction of the image in constant borders", lambda case: case.border),
    "brightness": ("mean value inside the foreground", lambda case: _brightness(case)),
}
_NAMES: dict[str, tuple[str, Callable[[CaseFingerprint], str]]] = {
    "case": ("the case's name", lambda case: case.case),
    "group": ("its group", lambda case: case.group),
    "dtype": ("the stored type", lambda case: case.dtype),
    "channels": ("the number of channels", lambda case: str(case.channels)),
    "classes": ("the classes in it", lambda case: _class_names(case)),
}


def stratify(
    dataset_results: DatasetResults,
    by: str,
    fraction: float,
    fingerprint: Callable[[], Fingerprint],
    metadata: Metadata | None = None,
) -> Stratification:
    """Strata by a model's name (easy and hard cases, each `fraction` of all), a column of the fingerprint or one of `metadata`.

    Columns of numbers are cut into thirds; columns of names make a stratum of each value, or, as "case=PATTERN" and
    "group=PATTERN", of each match of the regular expression. Raises AutosegError if `by` is none of these or two of them, or
    all cases are alike.
    """
    if not 0 < fraction <= 0.5:
        raise AutosegError(
            f"a fraction of {fraction:g} cannot be cut from both ends", "give one above 0 and up to 0.5, such as 0.05"
        )
    column, _, pattern = by.partition("=")
    given = metadata is not None and by in metadata.columns
    if given and (by in dataset_results.models or by in _NUMBERS or by in _NAMES):
        raise AutosegError(f"{by} is a column of the CSV and something else to stratify by", "rename the column")
    if given and metadata is not None:
        rule, members = _by_metadata(dataset_results, by, metadata)
    elif by in dataset_results.models:
        rule, members = _by_model(dataset_results, by, fraction)
    elif column in _NUMBERS and not pattern:
        rule, members = _by_number(column, fingerprint())
    elif column in _NAMES:
        rule, members = _by_name(column, pattern, fingerprint())
    else:
        own = f"; of the CSV: {', '.join(metadata.columns)}" if metadata is not None else ""
        raise AutosegError(
            f"cases cannot be stratified by {by!r}",
            f"a model: {', '.join(dataset_results.models)}; a column: {', '.join([*_NUMBERS, *_NAMES])}{own}; case=PATTERN",
        )
    cases_of_models = {case for model in dataset_results.models.values() for case in model.cases}
    strata = [
        _score(dataset_results, name, [case for case in cases if case in cases_of_models]) for name, cases in members.items()
    ]
    strata = [stratum for stratum in strata if stratum.cases]
    worst = {} if by in dataset_results.models else _worst_groups(dataset_results, strata)
    return Stratification(by, rule, tuple(strata), worst)


def _by_model(dataset_results: DatasetResults, model: str, fraction: float) -> tuple[str, dict[str, list[str]]]:
    scored = dataset_results.models[model]
    dice = {case: value for case, value in dice_of_cases(scored).items() if has_foreground(scored.cases[case])}
    if len(dice) < 2:
        raise AutosegError(f"{model} has {len(dice)} held-out cases whose reference is not empty", "train more folds")
    easy, hard, ties = easy_and_hard_cases(dice, fraction)
    rule = (
        f"the {len(easy)} of {len(dice)} cases ({fraction:.0%} of all, at least one) with the highest Dice of {model}, "
        f"and the same number with the lowest; cases with an empty reference are in neither" + (f"; {ties}" if ties else "")
    )
    return rule, {EASY: easy, HARD: hard}


def _by_number(column: str, fingerprint: Fingerprint) -> tuple[str, dict[str, list[str]]]:
    what, value = _NUMBERS[column]
    return _thirds(column, what, {case.case: value(case) for case in fingerprint.cases}, fingerprint.dataset)


def _by_metadata(dataset_results: DatasetResults, column: str, metadata: Metadata) -> tuple[str, dict[str, list[str]]]:
    cases = sorted({case for model in dataset_results.models.values() for case in model.cases})
    values = metadata.values(column, cases, dataset_results.spec.file_ending)
    amounts = numbers(values.values())
    if amounts is None:
        return f"{column} of {metadata.file.name}", _named(column, values, dataset_results.dataset.name)
    rule, members = _thirds(column, f"{column} of {metadata.file.name}", dict(zip(values, amounts, strict=True)),
                            dataset_results.dataset.name)  # fmt: skip
    missing = [case for case, value in values.items() if value == NOT_GIVEN]
    return rule, members | ({NOT_GIVEN: missing} if missing else {})


def _thirds(column: str, what: str, values: Mapping[str, float], dataset: str) -> tuple[str, dict[str, list[str]]]:
    values = {case: number for case, number in values.items() if is_defined(number)}
    if not values or len(set(values.values())) == 1:
        raise AutosegError(f"{column} is the same in all cases of {dataset}", "stratify by another column")
    low, high = np.quantile(list(values.values()), (1 / 3, 2 / 3))
    names = {
        "lower third": [case for case, number in values.items() if number <= low],
        "middle third": [case for case, number in values.items() if low < number <= high],
        "upper third": [case for case, number in values.items() if number > high],
    }
    return f"{what}: up to {low:.3g}, up to {high:.3g}, and above", {name: cases for name, cases in names.items() if cases}


def _by_name(column: str, pattern: str, fingerprint: Fingerprint) -> tuple[str, dict[str, list[str]]]:
    what, value = _NAMES[column]
    texts = [value(case) for case in fingerprint.cases]
    if pattern:
        matches = search(pattern, texts, "the pattern", _HINT)
        # The first group, or all of it without one; a group may match nothing.
        texts = [(match[1] if len(match) > 1 else match[0]) or "other" if match else "other" for match in matches]
    names = [case.case for case in fingerprint.cases]
    strata = _named(what, dict(zip(names, texts, strict=True)), fingerprint.dataset)
    return what + (f", by the pattern {pattern}" if pattern else ""), strata


def _named(what: str, texts: Mapping[str, str], dataset: str) -> dict[str, list[str]]:
    """Value -> its cases. texts: case -> value."""
    strata: dict[str, list[str]] = {}
    for case, text in texts.items():
        strata.setdefault(text, []).append(case)
    if len(strata) < 2:
        raise AutosegError(f"{what} does not tell the cases of {dataset} apart", _HINT)
    if len(strata) > 12:
        raise AutosegError(f"{what} has {len(strata)} values: too many for a table", _HINT)
    return dict(sorted(strata.items()))


def _score(dataset_results: DatasetResults, name: str, cases: list[str]) -> Stratum:
    scores = {}
    for model, one in dataset_results.models.items():
        of_model = one.cases
        scored = [of_model[case] for case in cases if case in of_model]
        if scored:
            scores[model] = _summary(scored, dataset_results.spec.groups)
    return Stratum(name, tuple(cases), scores)


def _worst_groups(dataset_results: DatasetResults, strata: Sequence[Stratum]) -> dict[str, WorstGroup]:
    """Model -> its worst group; without models for which less than two groups have enough cases with a defined Dice."""
    worst = {}
    for name, model in dataset_results.models.items():
        scored, means = model.cases, {}
        for stratum in strata:
            dice = _dice_of(stratum.cases, scored)
            if len(dice) >= FEWEST:
                means[stratum.name] = dice
        if len(means) < 2:
            continue
        lowest = min(means, key=lambda group: float(np.mean(list(means[group].values()))))
        everyone = _dice_of([case for stratum in strata for case in stratum.cases], scored)
        groups = dataset_results.spec.groups
        worst[name] = WorstGroup(
            group=lowest,
            groups=len(means),
            cases=len(means[lowest]),
            dice=_dice_interval(means[lowest], groups),
            all_cases=len(everyone),
            all_dice=_dice_interval(everyone, groups),
        )
    return worst


def _dice_of(cases: Sequence[str], scored: Mapping[str, CaseScore]) -> dict[str, float]:
    """Case -> mean Dice over its classes, where that is defined."""
    dice = {case: mean_over_classes(scored[case], "dice") for case in cases if case in scored}
    return {case: value for case, value in dice.items() if is_defined(value)}


def _dice_interval(dice: Mapping[str, float], groups: Mapping[str, str]) -> Interval:
    """Mean over cases with its interval: cases, or groups with all their cases, drawn with replacement."""
    if not dice:
        return Interval(math.nan, math.nan, math.nan)
    mean = sum(dice.values()) / len(dice)
    units: dict[str, list[float]] = {}
    for case, value in dice.items():
        unit = units.setdefault(groups.get(case, case), [0.0, 0.0])
        unit[0] += value
        unit[1] += 1
    if len(units) < 2:
        return Interval(mean, math.nan, math.nan)
    sums = statistics.bootstrap_sums(np.array(list(units.values())), 0)
    return Interval(mean, *statistics.percentiles(sums[:, 0] / sums[:, 1]))


def _summary(cases: list[CaseScore], groups: Mapping[str, str]) -> StratumScore:
    def spread(metric: str) -> tuple[float, float, int]:
        values = [mean_over_classes(case, metric) for case in cases]
        defined = np.array([value for value in values if is_defined(value)])
        missing = len(values) - len(defined)
        return (float(defined.mean()), float(defined.std()), missing) if len(defined) else (math.nan, math.nan, missing)

    dice, dice_std, _ = spread("dice")
    hd95, hd95_std, undefined = spread("hd95")
    diagonal, diagonal_std, _ = spread("hd95_diagonal")
    limits = _dice_interval(_dice_of([case.case for case in cases], {case.case: case for case in cases}), groups)
    return StratumScore(
        dice=dice, dice_std=dice_std, dice_low=limits.low, dice_high=limits.high, hd95=hd95, hd95_std=hd95_std,
        undefined=undefined, hd95_diagonal=diagonal, hd95_diagonal_std=diagonal_std,
    )  # fmt: skip


def _foreground(case: CaseFingerprint) -> int:
    return sum(one.pixels for one in case.classes.values())


def _class_names(case: CaseFingerprint) -> str:
    return " and ".join(name for name, one in case.classes.items() if one.pixels) or "none"


def _thinnest(case: CaseFingerprint) -> float:
    return min((one.thickness for one in case.classes.values() if one.pixels), default=float("nan"))


def _brightness(case: CaseFingerprint) -> float:
    return sum(case.foreground_mean) / len(case.foreground_mean) if case.foreground_mean else float("nan")


def columns() -> Mapping[str, str]:
    """Column -> description, for the command's help."""
    return {name: text for table in (_NUMBERS, _NAMES) for name, (text, _) in table.items()}
