"""Strata of cases: easy and hard for a reference model, or by a column of the fingerprint; every model is scored on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from autoseg.comparison.paired_scores import dice_of_cases, easy_and_hard_cases, has_foreground, mean_over_classes
from autoseg.comparison.results import DatasetResults
from autoseg.metrics.rules import is_defined
from autoseg.schema.comparison import Stratification, Stratum, StratumScore
from autoseg.schema.fingerprint import CaseFingerprint, Fingerprint
from autoseg.schema.scores import CaseScore
from autoseg.support.errors import AutosegError
from autoseg.support.patterns import search

EASY, HARD = "easy", "hard"
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
    dataset_results: DatasetResults, by: str, fraction: float, fingerprint: Callable[[], Fingerprint]
) -> Stratification:
    """Strata by a model's name (easy and hard cases, each `fraction` of all), or by a column of the fingerprint.

    Columns of numbers are cut into thirds; columns of names make a stratum of each value, or, as "case=PATTERN" and
    "group=PATTERN", of each match of the regular expression. Raises AutosegError if `by` is neither, or all cases are alike.
    """
    if not 0 < fraction <= 0.5:
        raise AutosegError(
            f"a fraction of {fraction:g} cannot be cut from both ends", "give one above 0 and up to 0.5, such as 0.05"
        )
    column, _, pattern = by.partition("=")
    if by in dataset_results.models:
        rule, members = _by_model(dataset_results, by, fraction)
    elif column in _NUMBERS and not pattern:
        rule, members = _by_number(column, fingerprint())
    elif column in _NAMES:
        rule, members = _by_name(column, pattern, fingerprint())
    else:
        raise AutosegError(
            f"cases cannot be stratified by {by!r}",
            f"a model: {', '.join(dataset_results.models)}; a column: {', '.join([*_NUMBERS, *_NAMES])}; case=PATTERN",
        )
    cases_of_models = {case for model in dataset_results.models.values() for case in model.cases}
    strata = [
        _score(dataset_results, name, [case for case in cases if case in cases_of_models]) for name, cases in members.items()
    ]
    return Stratification(by, rule, tuple(stratum for stratum in strata if stratum.cases))


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
    values = {case.case: value(case) for case in fingerprint.cases}
    values = {case: number for case, number in values.items() if is_defined(number)}
    if not values or len(set(values.values())) == 1:
        raise AutosegError(f"{column} is the same in all cases of {fingerprint.dataset}", "stratify by another column")
    low, high = np.quantile(list(values.values()), (1 / 3, 2 / 3))
    names = {
        "lower third": [case for case, number in values.items() if number <= low],
        "middle third": [case for case, number in values.items() if low < number <= high],
        "upper third": [case for case, number in values.items() if number > high],
    }
    return f"{what}: up to {low:.3g}, up to {high:.3g}, and above", names


def _by_name(column: str, pattern: str, fingerprint: Fingerprint) -> tuple[str, dict[str, list[str]]]:
    what, value = _NAMES[column]
    texts = [value(case) for case in fingerprint.cases]
    if pattern:
        matches = search(pattern, texts, "the pattern", _HINT)
        # The first group, or all of it without one; a group may match nothing.
        texts = [(match[1] if len(match) > 1 else match[0]) or "other" if match else "other" for match in matches]
    strata: dict[str, list[str]] = {}
    for case, text in zip(fingerprint.cases, texts, strict=True):
        strata.setdefault(text, []).append(case.case)
    if len(strata) < 2:
        raise AutosegError(f"{what} does not tell the cases of {fingerprint.dataset} apart", _HINT)
    if len(strata) > 12:
        raise AutosegError(f"{what} has {len(strata)} values: too many for a table", _HINT)
    return what + (f", by the pattern {pattern}" if pattern else ""), dict(sorted(strata.items()))


def _score(dataset_results: DatasetResults, name: str, cases: list[str]) -> Stratum:
    scores = {}
    for model, one in dataset_results.models.items():
        of_model = one.cases
        scored = [of_model[case] for case in cases if case in of_model]
        if scored:
            scores[model] = _summary(scored)
    return Stratum(name, tuple(cases), scores)


def _summary(cases: list[CaseScore]) -> StratumScore:
    def spread(metric: str) -> tuple[float, float, int]:
        values = [mean_over_classes(case, metric) for case in cases]
        defined = np.array([value for value in values if is_defined(value)])
        missing = len(values) - len(defined)
        return (float(defined.mean()), float(defined.std()), missing) if len(defined) else (math.nan, math.nan, missing)

    dice, dice_std, _ = spread("dice")
    hd95, hd95_std, undefined = spread("hd95")
    diagonal, diagonal_std, _ = spread("hd95_diagonal")
    return StratumScore(
        dice=dice, dice_std=dice_std, hd95=hd95, hd95_std=hd95_std, undefined=undefined,
        hd95_diagonal=diagonal, hd95_diagonal_std=diagonal_std,
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
