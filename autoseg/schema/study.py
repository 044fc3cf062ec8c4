"""A study that autoseg can repeat: its definition, read from YAML, and its results, `study.json`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from autoseg.schema.artefact import Artefact
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import Count, FileName, NonNegative, NonNegativeResult, Positive, Result, Side, Within
from autoseg.schema.omnimodel import Reader, Threshold
from autoseg.schema.plan import Protocol

Scale = Literal["full", "small"]
SCALES: tuple[Scale, ...] = ("full", "small")
Metric = Literal["mDSC", "mIoU", "mPrec", "mRec", "Dice", "HD95", "HD95_diagonal"]
# The model's name of the zero-shot image model in tables.
OMNIMODEL = "omnimodel"
Setting = str | int | float | bool
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StudyDataset:
    """One dataset. converter: of autoseg_convert; archive: its file or folder, or several names it may have, below --data.

    options, merge_test, groups: of the converter. splits: "canonical", "official", or a file of autoseg_splits; id: that the
    folds must have. cases: images of the study, 0 if not known. settings: of the plan, for this dataset only. prompts: class
    -> prompt for the zero-shot model. specialist: model whose Dice decides the easy and hard cases. note: for the reader.
    """

    name: FileName
    converter: str
    archive: tuple[str, ...]
    options: dict[str, Setting] = field(default_factory=dict)
    merge_test: bool = False
    groups: str = ""
    splits: str = "canonical"
    id: str = ""
    cases: Count = 0
    settings: dict[str, Setting] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    specialist: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyModel:
    """One model. title: in tables. variant, pretrained, settings: of its plan. seeds, datasets: of the study's, default all."""

    name: FileName
    title: str = ""
    variant: str = ""
    pretrained: Literal["", "auto", "study", "none"] = ""
    settings: dict[str, Setting] = field(default_factory=dict)
    seeds: tuple[Count, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyExternal:
    """The networks trained on `dataset` are tested on `other`. labels: of `dataset` -> of `other`, if their names differ."""

    dataset: str
    other: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """families: name -> models, whose means are compared. strata: what cases are stratified by (see autoseg_compare), besides
    `StudyDataset.specialist`. share: of the cases that are easy, and hard. external: tests on other datasets. worst_cases: of
    each fold and model, that get heat maps."""

    families: dict[str, tuple[str, ...]] = field(default_factory=dict)
    strata: tuple[str, ...] = ()
    share: Annotated[float, Within(0, 0.5, above=True)] = 0.05
    external: tuple[StudyExternal, ...] = ()
    worst_cases: Count = 0


@dataclass(frozen=True, kw_only=True)
class StudyOmnimodel:
    """The zero-shot image model: see `autoseg.api.Omnimodel`. It is asked about the easy and hard cases only."""

    reader: Reader
    model: str = ""
    title: str = OMNIMODEL
    threshold: Threshold = "fixed"


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """Published numbers: rows: model -> dataset -> mean, or mean and deviation.

    metric: "mDSC" and its like are micro averages over images and classes; "Dice" and "HD95" are means over images, or with
    `of` the Dice of one class from summed counts. HD95 leaves out empty masks, HD95_diagonal counts them as the image's
    diagonal; a published HD95 stands next to both of ours. stratum: "easy" or "hard", "" for all cases. unit: of the numbers.
    """

    metric: Metric
    unit: Literal["percent", "pixels"]
    rows: dict[str, dict[str, tuple[float, ...]]]
    of: str = ""
    stratum: Literal["", "easy", "hard"] = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class SmallScale:
    """How --scale small shrinks the study: images of each dataset, side of the input, steps of a training, folds (0: all)."""

    cases: Positive = 60
    side: Side = 96
    steps: Positive = 150
    folds: Count = 0
    worst_cases: Count = 2
    settings: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file. study: version of the format. deviations: from the published protocol, known beforehand."""

    study: Positive
    name: FileName
    title: str
    source: str
    datasets: tuple[StudyDataset, ...]
    models: tuple[StudyModel, ...]
    protocol: Protocol
    folds: Annotated[int, Within(2, 1000)] = 5
    seeds: tuple[Count, ...] = (0,)
    settings: dict[str, Setting] = field(default_factory=dict)
    comparison: StudyComparison = field(default_factory=StudyComparison)
    omnimodel: StudyOmnimodel | None = None
    published: tuple[PublishedTable, ...] = ()
    deviations: tuple[str, ...] = ()
    small: SmallScale = field(default_factory=SmallScale)

    def problems(self) -> Iterator[str]:
        """Names that are given twice or that nothing has, and numbers that are no mean and deviation."""
        if self.study > _FORMAT:
            yield f"study: version {self.study} needs a newer autoseg, this one reads {_FORMAT}"
        datasets, models = [one.name for one in self.datasets], [one.name for one in self.models]
        for where, names in (("datasets", datasets), ("models", models)):
            if not names:
                yield f"{where}: expected at least one, found []"
            yield from (f"{where}: {name} is listed twice" for name in dict.fromkeys(names) if names.count(name) > 1)
        if not self.seeds:
            yield "seeds: expected at least one, found []"
        for number, model in enumerate(self.models):
            yield from _unknown(f"models[{number}].datasets", model.datasets, datasets)
            yield from _unknown(f"models[{number}].seeds", model.seeds, self.seeds)
        for number, dataset in enumerate(self.datasets):
            yield from _unknown(f"datasets[{number}].specialist", [dataset.specialist] if dataset.specialist else [], models)
        for family, members in self.comparison.families.items():
            yield from _unknown(f"comparison.families.{family}", members, models)
        for number, one in enumerate(self.comparison.external):
            yield from _unknown(f"comparison.external[{number}]", [one.dataset, one.other], datasets)
        yield from self._published_problems(datasets, [*models, *([OMNIMODEL] if self.omnimodel else [])])

    def _published_problems(self, datasets: list[str], models: list[str]) -> Iterator[str]:
        for number, table in enumerate(self.published):
            where = f"published[{number}].rows"
            yield from _unknown(where, table.rows, models)
            for model, row in table.rows.items():
                yield from _unknown(f"{where}.{model}", row, datasets)
                yield from (
                    f"{where}.{model}.{name}: expected a mean, or a mean and a deviation, found {len(numbers)} numbers"
                    for name, numbers in row.items()
                    if len(numbers) not in (1, 2)
                )

    def models_of(self, dataset: str, seed: int) -> list[str]:
        """Names of the models that are trained on a dataset with a seed."""
        return [
            model.name
            for model in self.models
            if dataset in (model.datasets or [dataset]) and seed in (model.seeds or self.seeds)
        ]


def _unknown(where: str, names: Iterable[object], known: Collection[object]) -> Iterator[str]:
    listed = ", ".join(map(str, known))
    yield from (f"{where}: expected one of {listed}, found {name!r}" for name in names if name not in known)


@dataclass(frozen=True, kw_only=True)
class StudyNumber:
    """One number of the study's tables next to the published one, both in `unit`.

    model, dataset, metric, of, stratum: see PublishedTable. ours, deviation: over `values` folds and seeds, or over images in a
    stratum; not-a-number without results. published: not-a-number if the study gives none.
    """

    dataset: str
    model: str
    title: str
    metric: Metric
    unit: str
    of: str = ""
    stratum: str = ""
    ours: Result = math.nan
    deviation: NonNegativeResult = math.nan
    values: Count = 0
    published: Result = math.nan
    published_deviation: NonNegativeResult = math.nan

    @property
    def difference(self) -> float:
        """Ours minus the published one."""
        return self.ours - self.published


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyRecord(Artefact, Tabular):
    """`study.json`: enough for its tables. source, datasets, families: of the study file, without what was left out.

    mark: what every table of a study at a small scale says, "" at full scale. used: dataset -> the one in its place. splits:
    dataset -> id of its folds. hours: sum over the trainings. failed: jobs without results. heat_maps: folders of the worst
    cases' heat maps."""

    NAME = "study"
    VERSION = 1

    study: str
    title: str
    source: str
    scale: Scale
    mark: str
    datasets: tuple[str, ...]
    numbers: tuple[StudyNumber, ...]
    deviations: tuple[str, ...]
    families: dict[str, tuple[str, ...]] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    seeds: tuple[Count, ...] = (0,)
    hours: NonNegative = 0.0
    failed: tuple[str, ...] = ()
    heat_maps: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        done = sum(not math.isnan(one.ours) for one in self.numbers)
        scale = "" if self.scale == "full" else f", {self.scale} scale"
        numbers, deviations = count(len(self.numbers), "number"), count(len(self.deviations), "deviation")
        return f"{self.study}{scale}: {done} of {numbers}, {deviations}"

    def to_rows(self) -> list[Row]:
        return [fields(one) | {"difference": one.difference} for one in self.numbers]


@dataclass(frozen=True, kw_only=True)
class StudyTraining:
    """The trainings of one model on one dataset with one seed. folds: that are left to train. hours: of these together.
    memory: bytes of one."""

    dataset: str
    model: str
    seed: Count
    variant: str
    folds: Count
    hours: NonNegativeResult
    memory: Count


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyCheck(Tabular):
    """What a study needs. problems: what is missing, one line each. hours: of all trainings that are left, one after the other;
    not-a-number if some could not be measured."""

    study: str
    scale: Scale
    trainings: tuple[StudyTraining, ...]
    problems: tuple[str, ...]

    @property
    def hours(self) -> float:
        return sum(one.hours for one in self.trainings)

    def summary(self) -> str:
        folds = sum(one.folds for one in self.trainings)
        left = f"{count(folds, 'training')} left" if self.trainings else "nothing is planned yet"
        hours = "" if math.isnan(self.hours) or not folds else f", about {self.hours:.1f} hours one after the other"
        return f"{self.study}: {left}{hours}; {'some things are missing' if self.problems else 'nothing is missing'}"

    def to_rows(self) -> list[Row]:
        return [fields(one) for one in self.trainings]
