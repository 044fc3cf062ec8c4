"""A study before its trainings: what is missing, conversion, folds, plans, hours and memory."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg.api.conversion import convert, convert_folders
from autoseg.api.planning import plan_and_preprocess, store_groups
from autoseg.api.splits import given_splits
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.runner import Job
from autoseg.schema.study import SCALES, Scale, Study, StudyCheck, StudyDataset, StudyTraining
from autoseg.study.layout import StudyFolders
from autoseg.study.requirements import DataSource, MissingWeights, Starts, decide_starts, find_data, missing_packages
from autoseg.study.scale import at_scale, plan_settings, selected
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_text, read_artefact, write_text
from autoseg.support.workspace import Dataset, Root, Workspace

logger = logging.getLogger(__name__)

# Not a dataset of the registry: two folders, as autoseg_convert folders reads them.
_FOLDERS = "folders"
_STAMP = "study.txt"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """See `autoseg.api.run_study`."""

    scale: Scale = "full"
    data: Path | None = None
    use: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    missing_weights: MissingWeights = "refuse"
    mock_service: bool = False
    send_images_to: str | None = None
    heat_maps: bool = True
    hours: float | None = None
    memory: int | str | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A study that was looked at, but of which nothing was made yet. study: at its scale, with the selected parts."""

    study: Study
    options: StudyOptions
    folders: StudyFolders
    base: Path | None
    sources: tuple[DataSource, ...]
    starts: Starts
    left_out: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedStudy:
    """datasets: of the study -> the raw dataset. splits: -> its folds. check: hours, memory and problems."""

    datasets: dict[str, Dataset]
    splits: dict[str, Splits]
    check: StudyCheck

    def at(self, setup: Setup, dataset: str, seed: int) -> Dataset:
        """The dataset with the plans and results of a seed."""
        return Dataset(setup.folders.root(seed), self.datasets[dataset].name)


def set_up(which: str, options: StudyOptions, root: Root) -> Setup:
    """Look for everything the study needs; nothing is written. Raises AutosegError for a study file with faults, and for
    unknown names in the options."""
    from autoseg.study.definition import read_study

    whole, base = read_study(which)
    if options.scale not in SCALES:
        raise AutosegError(f"there is no scale {options.scale!r}", f"choose one of {', '.join(SCALES)}")
    _check_selection("dataset", options.datasets, [one.name for one in whole.datasets])
    _check_selection("model", options.models, [one.name for one in whole.models])
    study = at_scale(selected(whole, options.datasets, options.models), options.scale)
    if options.mock_service and study.omnimodel is not None:
        title = f"stand-in for {study.omnimodel.title} (no model)"
        study = replace(study, omnimodel=replace(study.omnimodel, title=title))
    workspace = Workspace.at(root)
    folders = StudyFolders.of(workspace, study.name, options.scale)
    places = [place for place in (options.data, base, folders.downloads) if place is not None]
    left_out = {one.name for one in whole.datasets} - {one.name for one in study.datasets}
    use = {name: dataset for name, dataset in options.use.items() if name not in left_out}
    sources, problems = find_data(study, workspace, places, use)
    starts = decide_starts(study, workspace.weights, options.missing_weights, options.scale)
    problems += [*starts.problems, *missing_packages(study, options.heat_maps)]
    problems += [*_converter_problems(sources), *_service_problems(study, options)]
    return Setup(
        study=study, options=options, folders=folders, base=base, sources=tuple(sources), starts=starts,
        left_out=tuple(_left_out(whole, study)), problems=tuple(problems),
    )  # fmt: skip


def plan_study(setup: Setup) -> PlannedStudy:
    """Convert, split and plan every dataset that is there, with every seed. What fails is among the problems of the result."""
    problems = list(setup.problems)
    datasets: dict[str, Dataset] = {}
    splits: dict[str, Splits] = {}
    trainings: list[StudyTraining] = []
    for source in setup.sources:
        try:
            data = _convert(setup, source)
            datasets[source.study.name] = data
            for seed in setup.study.seeds:
                names = setup.study.models_of(source.study.name, seed)
                if names:
                    plan, made = _planned(setup, source, data, names, seed)
                    splits[source.study.name] = made
                    trainings += _trainings(setup, source.study.name, Dataset(setup.folders.root(seed), data.name), plan, seed)
                    problems += _memory_problems(source.study.name, plan)
        except SeveralProblems as error:
            problems += [f"{source.study.name}: {error.headline}", *error.problems]
        except AutosegError as error:
            problems.append(f"{source.study.name}: {error.problem}" + (f"; {error.remedy}" if error.remedy else ""))
    check = StudyCheck(
        study=setup.study.name, scale=setup.options.scale, trainings=tuple(trainings), problems=tuple(dict.fromkeys(problems))
    )
    limit = setup.options.hours
    if limit is not None and not check.hours <= limit:
        expected = "not known" if math.isnan(check.hours) else f"about {check.hours:.1f}, one training after the other"
        check = replace(check, problems=(*check.problems, f"hours: {expected}; the limit is {limit:g}"))
    return PlannedStudy(datasets=datasets, splits=splits, check=check)


def _check_selection(what: str, chosen: Sequence[str] | None, known: Sequence[str]) -> None:
    unknown = [name for name in chosen or () if name not in known]
    if unknown or (chosen is not None and not chosen):
        raise AutosegError(f"the study has no {what} {', '.join(unknown) or 'of an empty list'}", f"one of {', '.join(known)}")


def _left_out(whole: Study, study: Study) -> Iterator[str]:
    for kind, all_of, kept in (("dataset", whole.datasets, study.datasets), ("model", whole.models, study.models)):
        names = {one.name for one in kept}
        yield from (f"{kind} {one.name}" for one in all_of if one.name not in names)


def _converter_problems(sources: Sequence[DataSource]) -> Iterator[str]:
    from dataset_conversion.registry import converter

    for source in sources:
        if source.archive is not None and source.study.converter != _FOLDERS:
            try:
                converter(source.study.converter)
            except AutosegError as error:
                yield f"{source.study.name}: {error.problem}; {error.remedy}"


def _service_problems(study: Study, options: StudyOptions) -> Iterator[str]:
    """What a zero-shot model lacks: consent and a key."""
    from autoseg.omnimodel import gemini, image_edit
    from autoseg.omnimodel.client import check_consent
    from autoseg.schema.omnimodel import SERVICES
    from autoseg.support.workspace import secret

    if study.omnimodel is None or options.mock_service or study.omnimodel.reader not in SERVICES:
        return
    if not any(dataset.specialist for dataset in study.datasets):
        return
    reader = study.omnimodel.reader
    try:
        check_consent(reader, options.send_images_to)
    except AutosegError as error:
        yield f"service: {error.problem}; {error.remedy}, or --mock-service to try the study without it"
    if not _is_installed("google.genai" if reader == "gemini" else "openai"):
        yield f"package: {reader} needs: pip install 'autoseg[omnimodel]'"
    keys = gemini.KEYS if reader == "gemini" else image_edit.KEYS
    if not secret(*keys):
        yield f"service: {reader} needs a key in the environment variable {' or '.join(keys)}; it is never written"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Its parent is missing.
        return False


def _convert(setup: Setup, source: DataSource) -> Dataset:
    """The raw dataset; converted from its archive if it is not there."""
    from autoseg.io.raw_dataset import RawDataset

    if source.existing is not None:
        return source.existing
    study, root = source.study, setup.folders.workspace.root
    assert source.archive is not None
    if study.converter == _FOLDERS:
        given = {"images": "images", "masks": "masks", **study.options}
        labels = [name.strip() for name in str(given["labels"]).split(",")] if "labels" in given else None
        images, masks = (source.archive / str(given[part]) for part in ("images", "masks"))
        report = convert_folders(images, masks, study.name, labels=labels, groups=study.groups or None, root=root)
        return report.dataset
    options: dict[str, Any] = dict(study.options)
    report = convert(study.converter, source.archive, study.name, options=options, merge_test=study.merge_test, root=root)
    if study.groups:
        # Before the folds are made.
        store_groups(report.dataset, RawDataset.open(report.dataset), study.groups)
    return report.dataset


def _planned(
    setup: Setup, source: DataSource, data: Dataset, names: Sequence[str], seed: int
) -> tuple[Plan, Splits]:
    """The plan of one dataset and seed, made again only if what it is made from has changed; and its folds."""
    root = setup.folders.make_root(seed)
    dataset = Dataset(root, data.name)
    splits_file = setup.folders.splits(source.study.name)
    train_cases = _write_splits(setup, source, data, splits_file)
    models = {name: setup.starts.models[name] for name in names}
    settings = plan_settings(setup.study, source.study, models, setup.options.scale, seed, train_cases)
    wanted = {
        "protocol": setup.study.protocol, "models": list(names), "settings": settings, "memory": setup.options.memory,
        "device": setup.options.device, "splits": splits_file.read_text(encoding="utf-8"), "scale": setup.options.scale,
    }  # fmt: skip
    stamp, text = dataset.preprocessed / _STAMP, hash_text(json.dumps(wanted, sort_keys=True))
    if not (dataset.plan.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == text):
        if stamp.is_file() and dataset.runs():
            logger.warning(
                f"the plan of {source.study.name}, seed {seed}, has changed: its finished runs stay; to train them again, "
                f"delete {dataset.results}"
            )
        plan_and_preprocess(
            data.name, protocol=setup.study.protocol, models=list(names), memory=setup.options.memory,
            device=setup.options.device, settings=settings, splits=splits_file, preprocess=False,
            hours=0 if setup.options.scale == "small" else None, root=root,
        )  # fmt: skip
        write_text(stamp, text)
    return read_artefact(dataset.plan, Plan), read_artefact(dataset.splits, Splits)


def _write_splits(setup: Setup, source: DataSource, data: Dataset, target: Path) -> int:
    """Write the folds of a dataset as text, the same for all seeds; returns the training cases of the smallest fold. The images
    are measured in the first seed's root, and the others get a copy."""
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.canonical_splits import CANONICAL, subset, without
    from autoseg.planning.duplicates import duplicates_to_remove
    from autoseg.planning.split_file import to_text

    roots = [setup.folders.make_root(seed) for seed in setup.study.seeds]
    first, *others = (Dataset(root, data.name) for root in roots)
    raw = RawDataset.open(first)
    measured = fingerprint_dataset(first, raw=raw, current_hashes=True)
    for other in others:
        if not other.fingerprint.is_file():
            other.preprocessed.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(first.fingerprint, other.fingerprint)
    splits = given_splits(first, raw, measured, {"training.folds": str(setup.study.folds)}, _asked_splits(setup, source.study))
    assert splits is not None
    if setup.study.protocol == "benchmark" and source.study.splits == CANONICAL:
        # As the protocol does in folds of its own.
        splits = without(splits, duplicates_to_remove(measured, raw.spec))
    if setup.options.scale == "small":
        splits = subset(splits, measured, raw.spec, setup.study.small.cases)
    text = to_text(splits, measured)
    expected = source.study.id
    if expected and setup.options.scale == "full" and f"id: {expected}\n" not in text:
        raise AutosegError(f"the folds have not the id {expected} that the study gives", "get the images of the study")
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)
    return min(len(fold.train) for fold in splits.folds)


def _asked_splits(setup: Setup, dataset: StudyDataset) -> str:
    """The rule, or the file, which lies where the study file does unless its path is absolute."""
    from autoseg.planning.canonical_splits import CANONICAL
    from autoseg.planning.official_splits import OFFICIAL

    if dataset.splits in (CANONICAL, OFFICIAL):
        return dataset.splits
    return str((setup.base or Path()) / Path(dataset.splits).expanduser())


def _trainings(setup: Setup, name: str, dataset: Dataset, plan: Plan, seed: int) -> Iterator[StudyTraining]:
    """What is left to train, with the time of the search for the learning rate once."""
    from autoseg.runner.jobs import is_done

    folds = len(read_artefact(dataset.splits, Splits).folds)
    for model, planned in plan.models.items():
        left = sum(not is_done(dataset.root, Job(dataset.name, model, fold)) for fold in range(folds))
        hours = math.nan
        if planned.timing is not None:
            steps, trials = planned.timing.steps, planned.timing.trial_steps
            share = trials / (steps + trials) if trials else 0.0
            hours = planned.timing.hours * (left * (1 - share) + share * bool(left))
        yield StudyTraining(
            dataset=name, model=model, seed=seed, variant=planned.variant, folds=left, hours=hours if left else 0.0,
            memory=planned.memory,
        )  # fmt: skip


def _memory_problems(name: str, plan: Plan) -> Iterator[str]:
    for model in plan.models.values():
        if model.memory > plan.memory_budget:
            need, limit = model.memory / 2**30, plan.memory_budget / 2**30
            yield f"memory: {model.model} on {name} needs {need:.1f} GiB, the limit on {plan.device} is {limit:.1f}"


def plan_facts(setup: Setup, planned: PlannedStudy) -> dict[str, Plan]:
    """Dataset -> its plan of the first seed."""
    plans = {}
    for name in planned.datasets:
        dataset = planned.at(setup, name, setup.study.seeds[0])
        if dataset.plan.is_file():
            plans[name] = read_artefact(dataset.plan, Plan)
    return plans

