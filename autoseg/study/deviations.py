"""What differs from the published protocol: known beforehand, chosen at the start, and found in the results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from autoseg.schema.comparison import DatasetComparison
from autoseg.schema.plan import Plan
from autoseg.schema.study import Study, StudyDataset

# What the study itself sets is no choice of the user.
_NO_DEVIATION = ("training.seed",)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a study was made with. mark: of the scale. used: dataset of the study -> the user's dataset in its place.

    cases: images in the folds of each dataset. random: models that started from random weights although the study's did not.
    variants: model -> variant, where it is not the study's. plans: dataset -> plan. comparisons: of all datasets and seeds.
    failed: jobs without results. mock: whether the zero-shot model was a stand-in. left_out: datasets and models.
    """

    mark: str = ""
    used: Mapping[str, str] = field(default_factory=dict)
    cases: Mapping[str, int] = field(default_factory=dict)
    random: Iterable[str] = ()
    variants: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    comparisons: Iterable[DatasetComparison] = ()
    failed: Iterable[str] = ()
    mock: bool = False
    left_out: Iterable[str] = ()
    notes: Iterable[str] = ()


def deviations(study: Study, facts: Facts) -> tuple[str, ...]:
    """One line for each deviation, without repetitions."""
    return tuple(dict.fromkeys(_lines(study, facts)))


def _lines(study: Study, facts: Facts) -> Iterator[str]:
    if facts.mark:
        yield facts.mark
    yield from study.deviations
    left_out = list(facts.left_out)
    if left_out:
        yield f"left out: {', '.join(left_out)}"
    if facts.mock:
        yield "the zero-shot model is a stand-in that marks the bright part of each picture: its numbers are no model's"
    for dataset in study.datasets:
        yield from _of_dataset(dataset, facts)
    random = list(facts.random)
    if random:
        yield f"from random weights instead of published ones: {', '.join(random)}"
    if facts.variants:
        yield f"other variants: {', '.join(f'{name} {variant}' for name, variant in facts.variants.items())}"
    yield from facts.notes
    for name, plan in facts.plans.items():
        changed = [f"{path} = {value}" for path, value in plan.overrides.items() if path not in _NO_DEVIATION]
        changed = [one for one in changed if not one.startswith("models.")]
        if changed and plan.protocol == "benchmark":
            yield f"{name}: set by the study file or its scale: {', '.join(changed)}"
    for comparison in facts.comparisons:
        yield from (f"{comparison.dataset}: {note}" for note in comparison.notes)
    yield from (f"without a result: {one}" for one in facts.failed)


def _of_dataset(dataset: StudyDataset, facts: Facts) -> Iterator[str]:
    used = facts.used.get(dataset.name)
    if used is not None:
        yield f"{used} in the place of {dataset.name}"
    cases = facts.cases.get(dataset.name)
    if cases is not None and dataset.cases and cases != dataset.cases:
        yield f"{dataset.name}: {cases} images in the folds, the study had {dataset.cases}"
