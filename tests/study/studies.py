"""A small study, and comparisons as its trainings would give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autoseg.comparison.tables import STUDY
from autoseg.schema import serde
from autoseg.schema.comparison import DatasetComparison, Estimate, Interval, ModelResult, Stratification, Stratum, StratumScore
from autoseg.schema.study import Study
from autoseg.study.definition import _expanded

CONTENT: dict[str, Any] = {
    "study": 1, "name": "mine", "title": "My study", "source": "me 2026", "protocol": "benchmark", "folds": 2,
    "datasets": [
        {"name": "A", "converter": "folders", "archive": "a", "cases": 10, "specialist": "unet"},
        {"name": "B", "converter": "folders", "archive": "b"},
    ],
    "models": ["unet", {"name": "segformer", "title": "SegFormer", "datasets": ["A"]}],
    "omnimodel": {"reader": "gemini", "title": "Image model"},
    "comparison": {"families": {"specialist": ["unet"], "generalist": ["segformer"]}},
    "published": [
        {"metric": "mDSC", "unit": "percent", "rows": {"unet": {"A": [80, 1.5], "B": 70}, "segformer": {"A": 85}}},
        {"metric": "Dice", "of": "lesion", "unit": "percent", "rows": {"unet": {"A": 60}}},
        {"metric": "Dice", "stratum": "easy", "unit": "percent", "rows": {"unet": {"A": 95}, "omnimodel": {"A": 66}}},
        {"metric": "HD95", "stratum": "hard", "unit": "pixels", "rows": {"unet": {"A": 12.5}}},
    ],
}  # fmt: skip


def study(**changes: Any) -> Study:
    return serde.from_dict(_expanded({**CONTENT, **changes}), Study)


def estimate(*values: float) -> Estimate:
    defined = [value for value in values if not math.isnan(value)]
    return Estimate(sum(defined) / len(defined), 0.0, {str(number): value for number, value in enumerate(values)})


def result(model: str, *dice: float, classes: Mapping[str, tuple[float, ...]] | None = None) -> ModelResult:
    """A model with the same four averages in each fold, and the Dice of classes."""
    overall = {key: estimate(*dice) for key in STUDY.values()} | {"per_image.dice": estimate(*dice)}
    return ModelResult(
        model=model, title=model, family="specialist", variant="", pretrained="", folds=tuple(range(len(dice))), cases=10,
        overall=overall, classes={name: {"pooled.dice": estimate(*values)} for name, values in (classes or {}).items()},
        case_mean=Interval(math.nan, math.nan, math.nan), cost=None,
    )  # fmt: skip


def score(dice: float, hd95: float) -> StratumScore:
    return StratumScore(dice=dice, dice_std=0.02, hd95=hd95, hd95_std=1.0, undefined=0, hd95_diagonal=2 * hd95)


def comparison(*models: ModelResult, strata: Mapping[str, Mapping[str, StratumScore]] | None = None) -> DatasetComparison:
    stratified = Stratification("unet", "", tuple(Stratum(name, ("c",), dict(one)) for name, one in (strata or {}).items()))
    return DatasetComparison(
        dataset="Dataset501_A", protocol="benchmark", metric="dice", unit="px", tolerance=2.0, classes=("lesion",), cases=10,
        units="case", models=models, tests=(), ranking=None, families=(), family_tests=(), strata=(stratified,),
        notes=("the initial weights: random: unet",),
    )  # fmt: skip
