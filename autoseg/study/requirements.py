"""What a study needs and whether it is there: data, weights, packages. Nothing is converted, planned or downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from autoseg.models import registry
from autoseg.schema.study import Scale, Study, StudyDataset, StudyModel
from autoseg.study.scale import without_weights
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Workspace
from autoseg.weights.pretrained import AUTO, NONE, STUDY, fetch_command, find_start

MissingWeights = Literal["refuse", "random"]
HEAT_MAP_PACKAGE = "pytorch_grad_cam"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where a dataset comes from. existing: it is converted already; else archive: a file or folder. used: the user named a
    dataset for it."""

    study: StudyDataset
    existing: Dataset | None = None
    archive: Path | None = None
    used: bool = False


@dataclass(frozen=True, kw_only=True)
class Starts:
    """How the models start. models: with their variants and weights decided. random: those that start from random weights
    although published ones exist. variants: those that are not the study's. problems: missing weights, one line each."""

    models: dict[str, StudyModel]
    random: tuple[str, ...] = ()
    variants: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def find_data(
    study: Study, workspace: Workspace, folders: Sequence[Path], use: Mapping[str, str]
) -> tuple[list[DataSource], list[str]]:
    """Each dataset's source, and a line for each that is missing. folders: to look for archives in. use: dataset of the study
    -> dataset of the workspace in its place."""
    unknown = [name for name in use if name not in {one.name for one in study.datasets}]
    problems = [f"--use {name}: the study has no dataset {name}, but {_names(study)}" for name in unknown]
    sources = []
    for dataset in study.datasets:
        try:
            source = _find(dataset, workspace, folders, use.get(dataset.name, ""))
        except AutosegError as error:
            problems.append(f"data: {dataset.name}: {error.problem}; {error.remedy}")
        else:
            sources.append(source)
    return sources, problems


def _find(dataset: StudyDataset, workspace: Workspace, folders: Sequence[Path], used: str) -> DataSource:
    if used:
        return DataSource(study=dataset, existing=workspace.dataset(used), used=True)
    same = [one for one in workspace.datasets() if one.short_name.casefold() == dataset.name.casefold()]
    if same:
        return DataSource(study=dataset, existing=same[0])
    for folder in folders:
        for name in dataset.archive:
            path = folder / Path(name).expanduser()
            if path.exists():
                return DataSource(study=dataset, archive=path)
    names, where = " or ".join(dataset.archive), " or ".join(map(str, dict.fromkeys(folders)))
    raise AutosegError(
        f"there is no {names} in {where}",
        f"get it as `autoseg_convert {dataset.converter} --help` says, or name a dataset for it: --use {dataset.name}=DATASET",
    )


def decide_starts(study: Study, weights: Path, missing: MissingWeights, scale: Scale) -> Starts:
    """The weights and variant of each model. missing: what to do where published weights are not in the folder `weights`."""
    models: dict[str, StudyModel] = {}
    variants: dict[str, str] = {}
    random: list[str] = []
    problems: list[str] = []
    wanted_files: list[str] = []
    for model in study.models:
        spec = registry.spec(model.name)
        default = model.variant or spec.default_variant
        choice = model.pretrained or AUTO
        start = None if choice == NONE else find_start(spec, default, weights, study=choice == STUDY)
        decided = model
        if start is not None and start.missing:
            wanted = " and ".join(dict.fromkeys(files[0].trained_on for files in start.missing.values()))
            if missing == "refuse":
                problems.append(f"weights: {model.name} {default}: {wanted} weights are not in {weights}")
                wanted_files.append(f"{model.name}:{default}")
            random.append(model.name)
        if start is None or start.missing or start.source is None:
            decided = without_weights(model, spec.variants[0].name, scale)
        if decided.variant and decided.variant != default:
            variants[model.name] = decided.variant
        models[model.name] = replace(decided, variant=decided.variant or default)
    if problems:
        command = fetch_command(" ".join(wanted_files), weights)
        problems.append(f"{command} gets these weights; --missing-weights random does without")
    return Starts(models=models, random=tuple(random), variants=variants, problems=tuple(problems))


def missing_packages(study: Study, heat_maps: bool) -> Iterator[str]:
    """A line for each optional package that the study needs and that is not installed."""
    if heat_maps and study.comparison.worst_cases and importlib.util.find_spec(HEAT_MAP_PACKAGE) is None:
        yield "package: heat maps need grad-cam: pip install 'autoseg[explain]', or leave them out with --no-heat-maps"


def _names(study: Study) -> str:
    return ", ".join(one.name for one in study.datasets)
