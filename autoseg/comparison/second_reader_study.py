"""Evaluation of confidence scores and of a second reader, on held-out cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.comparison.paired_scores import easy_and_hard_cases, has_foreground, mean_over_classes
from autoseg.comparison.results import DatasetResults
from autoseg.comparison.selective_prediction import calibrated, confidences
from autoseg.comparison.statistics import risk_coverage
from autoseg.evaluation.case import score_case
from autoseg.io import read_label_of
from autoseg.io.raw_dataset import RawDataset
from autoseg.metrics.overlap import mean
from autoseg.metrics.rules import is_defined
from autoseg.prediction.calibration import case_dice, expected_dice_of_held_out, is_empty
from autoseg.prediction.second_reader import agreement, combine
from autoseg.schema.prediction import Confidence
from autoseg.schema.scores import CaseScore
from autoseg.schema.second_reader import POLICIES, ConfidenceArea, HybridScore, ReaderStudy
from autoseg.support.errors import AutosegError

# Higher is more confident.
_SCORES: dict[str, Callable[[Confidence], float]] = {
    "value": lambda one: one.value,
    "soft Dice": lambda one: one.soft_dice,
    "agreement of members": lambda one: one.agreement,
    "entropy": lambda one: -one.entropy,
    "least sure class": lambda one: min(one.classes.values(), default=math.nan),
}
_EXPECTED = "expected Dice"
_WITH_OTHERS = "agreement with the other models"
LabelMap = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class _Case:
    """One held-out case: the reference and each model's mask, (H, W)."""

    reference: LabelMap
    masks: Mapping[str, LabelMap]
    spacing: tuple[float, float] | None


def study(
    dataset_results: DatasetResults,
    first: str | None = None,
    second: str | None = None,
    threshold: float = 0.8,
    fraction: float = 0.05,
) -> ReaderStudy:
    """AURC of every model that recorded its confidence; scores of the hybrid of two readers, by default the two with the best
    mean Dice.

    The second reader reads a case if the first one's expected Dice, from a line fitted to all other groups (patients, near
    duplicates), is below `threshold`. fraction: of the cases that are hard, and easy. Raises AutosegError if there are fewer
    than two readers, the first has no confidence, or all cases are of one group.
    """
    dice = {
        name: {case: case_dice(score) for case, score in model.cases.items()} for name, model in dataset_results.models.items()
    }
    order = sorted(dice, key=lambda name: -float(np.mean(list(dice[name].values()))))
    first = first or next((name for name in order if name in dataset_results.trained), order[0])
    second = second or next((name for name in order if name != first), None)
    for name in (first, second):
        if name not in dataset_results.models:
            raise AutosegError(
                f"there is no reader {name or 'except ' + first!r}", f"readers: {', '.join(dataset_results.models)}"
            )
    assert second is not None
    shared = sorted(set(dice[first]) & set(dice[second]))
    loaded = _load(dataset_results, sorted(set().union(*(set(one) for one in dice.values()))))
    confidence = {name: confidences(model) for name, model in dataset_results.trained.items()}
    areas = [area for name in confidence for area in _areas(name, dice[name], confidence[name], loaded, dataset_results)]
    if len(shared) < 3 or not set(shared) <= set(confidence.get(first, {})):
        raise AutosegError(
            f"{first} and {second} have too few common held-out cases with confidence", "train more folds of both"
        )
    groups = dataset_results.case_groups
    if len({groups[case] for case in shared}) < 2:
        raise AutosegError(
            f"all common held-out cases of {first} and {second} are of one group (patient): no expected Dice can be judged",
            "train more folds of both",
        )
    expected = _expected(confidence[first], dataset_results.models[first].cases, dice[first], shared, groups)
    second_read = tuple(case for case in shared if expected[case] < threshold)
    scores = _hybrid(
        dataset_results,
        loaded,
        shared=shared,
        second_read=set(second_read),
        dice=dice[first],
        first=first,
        second=second,
        fraction=fraction,
    )
    return ReaderStudy(
        dataset=dataset_results.dataset.name,
        areas=tuple(areas),
        first=first,
        second=second,
        threshold=threshold,
        share=fraction,
        asked=second_read,
        scores=tuple(scores),
    )


def _areas(
    model: str,
    dice: Mapping[str, float],
    confidence: Mapping[str, Confidence],
    loaded: Mapping[str, _Case],
    dataset_results: DatasetResults,
) -> list[ConfidenceArea]:
    tables = {name: {case: of(one) for case, one in confidence.items()} for name, of in _SCORES.items()}
    values = {case: one.value for case, one in confidence.items() if case in dice and is_defined(one.value)}
    expected = calibrated(values, dataset_results.models[model].cases, dataset_results.case_groups)
    if expected is not None:
        tables[_EXPECTED] = expected
    scheme = dataset_results.spec.label_scheme()
    if len(dataset_results.models) > 1:
        tables[_WITH_OTHERS] = {}
        for case in dice:
            masks = loaded[case].masks
            others = [agreement(masks[model], mask, scheme) for name, mask in masks.items() if name != model]
            tables[_WITH_OTHERS][case] = sum(others) / len(others) if others else math.nan
    areas = []
    for name, table in tables.items():
        cases = [case for case in dice if is_defined(table.get(case, math.nan))]
        if len(cases) < 3:
            continue
        risk = [1 - dice[case] for case in cases]
        area = risk_coverage([table[case] for case in cases], risk)[2]
        best = risk_coverage([-value for value in risk], risk)[2]
        areas.append(
            ConfidenceArea(
                model=model,
                score=name,
                cases=len(cases),
                aurc=round(area, 4),
                best=round(best, 4),
                random=round(float(np.mean(risk)), 4),
            )
        )
    return areas


def _expected(
    confidence: Mapping[str, Confidence],
    scores: Mapping[str, CaseScore],
    dice: Mapping[str, float],
    cases: Sequence[str],
    groups: Mapping[str, str],
) -> dict[str, float]:
    """Expected Dice of each case, from a line fitted to all other groups."""
    columns = ([confidence[one].value for one in cases], [dice[one] for one in cases], [is_empty(scores[one]) for one in cases])
    x, y, empty = (np.asarray(column, np.float64) for column in columns)
    expected = expected_dice_of_held_out(x, y, empty, [groups[case] for case in cases])
    return dict(zip(cases, map(float, expected), strict=True))


def _load(dataset_results: DatasetResults, cases: Sequence[str]) -> dict[str, _Case]:
    known = {case.name: case for case in RawDataset.open(dataset_results.dataset).cases}
    loaded = {}
    for case in cases:
        path, images = (known[case].label, known[case].images) if case in known else (None, ())
        if path is None:
            raise AutosegError(f"{case} has no reference in {dataset_results.dataset.raw}", "restore its mask")
        label = read_label_of(path, images)
        paths = {name: model.mask_of(case) for name, model in dataset_results.models.items() if case in model.cases}
        masks = {name: read_label_of(path, images).array for name, path in paths.items() if path is not None}
        loaded[case] = _Case(label.array, masks, label.spacing)
    return loaded


def _hybrid(
    dataset_results: DatasetResults,
    loaded: Mapping[str, _Case],
    shared: Sequence[str],
    second_read: set[str],
    dice: Mapping[str, float],
    first: str,
    second: str,
    fraction: float,
) -> list[HybridScore]:
    cases = dataset_results.models[first].cases
    easy, hard, _ = easy_and_hard_cases({case: dice[case] for case in shared if has_foreground(cases[case])}, fraction)
    strata = {"all": list(shared), f"hard {fraction:.0%}": hard, f"easy {fraction:.0%}": easy}
    readers: dict[str, Callable[[str], LabelMap]] = {
        first: lambda case: loaded[case].masks[first],
        second: lambda case: loaded[case].masks[second],
    }
    for policy in POLICIES[1:]:

        def mask(case: str, policy: Any = policy) -> LabelMap:
            one, other = loaded[case].masks[first], loaded[case].masks[second]
            return combine(one, other, policy) if case in second_read else one

        readers[f"hybrid: {policy}"] = mask
    scores = []
    for reader, mask_of in readers.items():
        scored = {case: _scored(mask_of(case), loaded[case], dataset_results) for case in shared}
        for stratum, members in strata.items():
            dice_of, hd95, diagonal = zip(*(scored[case] for case in members), strict=True)
            scores.append(
                HybridScore(
                    stratum=stratum, reader=reader, cases=len(members), dice=round(sum(dice_of) / len(dice_of), 4),
                    hd95=round(mean(hd95), 2), hd95_diagonal=round(mean(diagonal), 2),
                )
            )  # fmt: skip
    return scores


def _scored(mask: LabelMap, case: _Case, dataset_results: DatasetResults) -> tuple[float, float, float]:
    """Dice (see `case_dice`), and HD95 both ways (not-a-number if undefined); means over the classes."""
    scheme = dataset_results.spec.label_scheme()
    ignore = case.reference == scheme.ignore if scheme.ignore is not None else None
    scores = score_case(mask, case.reference, scheme.foreground, ignore, case.spacing or (1.0, 1.0))
    score = CaseScore("", scores)
    return case_dice(score), mean_over_classes(score, "hd95"), mean_over_classes(score, "hd95_diagonal")
