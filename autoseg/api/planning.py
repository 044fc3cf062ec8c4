"""Fingerprint, plan, splits and arrays of a dataset."""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autoseg.api.options import DatasetId, Models, PathLike, Settings, model_names, setting_texts
from autoseg.api.splits import completed_splits, given_splits, needs_hashes, own_splits, with_given_folds
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import Results
from autoseg.schema.plan import Decision, Licence, Plan, Protocol, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import MODELS
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.raw_dataset import RawDataset

logger = logging.getLogger(__name__)

_SHOWN = 5
# Kinds of findings that leave nothing to learn, or something wrong.
_SERIOUS = (
    "absent_class", "empty_mask", "blank_image", "tiny_image", "mixed_dtype", "conflicting_masks", "mask_on_nothing",
    "channel_name", "read_as",
)  # fmt: skip


def fingerprint(dataset: DatasetId, root: Root = None, *, processes: bool = False) -> Fingerprint:
    """Measure a raw dataset. The result is written to fingerprint.json and reused while the files do not change.

    Args:
        dataset: id or name of the dataset.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).
        processes: use worker processes from 2000 images on, faster than threads on many cores. A script then needs
            `if __name__ == "__main__":` around the call.

    Returns:
        Sizes, values, classes and objects of all cases, near-duplicates, and findings to check.

    Raises:
        AutosegError: files are missing, unreadable or inconsistent; the message lists all of them.
    """
    from autoseg.fingerprint.measure import fingerprint_dataset

    return fingerprint_dataset(Workspace.at(root).dataset(dataset), processes=processes)


def plan_and_preprocess(
    dataset: DatasetId,
    *,
    protocol: Protocol = "auto",
    models: Models | None = None,
    memory: int | str | None = None,
    device: str = "auto",
    settings: Settings | None = None,
    splits: PathLike | None = None,
    partial_splits: bool = False,
    metadata: PathLike | None = None,
    preprocess: bool = True,
    processes: bool = False,
    hours: float | None = None,
    groups: str | None = None,
    licence: Licence = "any",
    root: Root = None,
) -> Plan:
    """Measure a dataset, decide how to train each model, and write fingerprint.json, plan.json, splits.json and the arrays.

    Args:
        dataset: id or name of the dataset.
        protocol: "auto"; "quick", minutes on a laptop; "benchmark", the same settings for every model.
        models: names of models to plan for (default: all).
        memory: limit for a training, in bytes or as "8G" (default: by the device).
        device: device of the trainings: "auto", "cpu", "cuda", "cuda:1" or "mps".
        settings: dotted field of the plan -> value: {"training.epochs": 50}. The plan records them.
        splits: a file with your own folds, in autoseg's or nnU-Net's format, or by content (`export_splits`), checked for
            leaks; "canonical", folds by the content of the images; "official", the publisher's test split as one fold;
            "by=site", a fold for each value of a column of `metadata`; "by=case=(berlin|bern)", of a part of the names
            (default: existing ones, else new ones). Folds that were given stay at the next planning.
        partial_splits: of folds by content take what fits, although images are missing or changed.
        metadata: CSV with a column "case" and others (site, scanner), for `splits`.
        preprocess: also write the arrays that trainings read.
        processes: as for `fingerprint`.
        hours: limit for the training of one fold; variants, input sizes, steps and trials are chosen to fit it (default: an
            hour for "auto" on a CPU, else none; 0: none). Times are measured by real steps, once on each machine.
        groups: regular expression with one group that matches the patient in a case's name, or "none" if each case is of
            another patient; stored in dataset.json. Needed once, if the names look like several images of one patient.
        licence: "commercial": start from no published weights whose licence is not known to allow commercial use.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The plan: the configuration of each model, and every decision with its reason.

    Raises:
        AutosegError: the files have errors, a model or setting is unknown, splits leak, or the memory is too small.
    """
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.fingerprint.sources import hash_sources
    from autoseg.io.cache import DecodedImageCache
    from autoseg.io.raw_dataset import RawDataset

    names, texts = model_names(models), setting_texts(settings)
    data = Workspace.at(root).dataset(dataset)
    check_request(names, texts, memory)
    check_hours(hours, protocol)
    before = _plan_before(data)
    raw = RawDataset.open(data)
    regrouped = groups is not None and store_groups(data, raw, groups)
    if regrouped:
        raw = RawDataset.open(data)
    with DecodedImageCache(data.preprocessed) if preprocess else nullcontext() as cache:
        sources = hash_sources(raw, data.raw)
        measured = fingerprint_dataset(
            data, cache=cache, raw=raw, sources=sources, processes=processes, current_hashes=needs_hashes(splits)
        )
        from autoseg import models as registry
        from autoseg.preprocessing.preprocess import preprocess_dataset

        selected = names or registry.usable_names()
        given = given_splits(data, raw, measured, texts, splits, partial=partial_splits, metadata=metadata)
        plan = _make_plan(
            measured, raw.spec, protocol=protocol, models=selected, memory=memory, device=device, settings=texts,
            splits=given, hours=hours, workspace=Workspace.at(root), licence=licence,
        )  # fmt: skip
        new_splits = completed_splits(given or own_splits(data, raw, measured, plan, regrouped), measured, raw.spec)
        plan = with_given_folds(plan, new_splits)
        write_artefact(data.splits, new_splits)
        write_artefact(data.sources, sources)
        write_artefact(data.plan, plan)
        _log_dropped(before, plan)
        if cache and len(plan.preprocessing) == 1:
            cache.stop_caching()
        _log_findings(measured, raw)
        _log_id(new_splits)
        logger.info(f"{data.name}: {len(raw.cases)} cases, plan for {_counted(plan.models)} in {data.plan}")
        log_missing_weights(data, plan)
        for config in plan.preprocessing.values() if preprocess else ():
            preprocess_dataset(data, raw, config, content_hash=measured.content_hash, cache=cache)
    return plan


def _log_id(splits: Splits) -> None:
    if splits.given and splits.id:
        logger.info(f"folds {splits.given}; the id of these folds is {splits.id}")


def _log_findings(measured: Fingerprint, raw: RawDataset) -> None:
    """The first findings with their first files: what no model can learn from comes first."""
    files = {case.name: case.images[0].name for case in raw.cases}
    rank = {kind: place for place, kind in enumerate(_SERIOUS)}
    findings = sorted(measured.findings, key=lambda finding: rank.get(finding.kind, len(rank)))
    for finding in findings[:_SHOWN]:
        more = f" and {len(finding.cases) - _SHOWN} more" if len(finding.cases) > _SHOWN else ""
        names = ", ".join(files.get(name, name) for name in finding.cases[:_SHOWN])
        logger.warning(f"to check: {finding.text}" + (f": {names}{more}" if names else ""))
    if len(findings) > _SHOWN:
        logger.warning(f"{len(findings) - _SHOWN} more findings: autoseg_fingerprint {measured.dataset}")


def _counted(models: Collection[str]) -> str:
    return f"{len(models)} model{'' if len(models) == 1 else 's'}"


def log_missing_weights(data: Dataset, plan: Plan, what: str = "") -> None:
    """One line with the one command that gets the published weights of the plan's models. what: to fetch, instead of those of
    the dataset's plan."""
    from autoseg.training.initial_weights import missing_weights
    from autoseg.weights.pretrained import fetch_command

    missing = missing_weights(data, plan, plan.models)
    if missing:
        command = fetch_command(what or f"--plan {data.number}", Workspace(data.root).weights)
        logger.info(f"published weights are missing for {', '.join(missing)}: {command}")


def decisions(plan: Plan) -> Results[Decision]:
    """List every decision of a plan with its reason, including what the user set.

    Args:
        plan: from `plan_and_preprocess`.

    Returns:
        The decisions: of the dataset first, then of each model.
    """
    from autoseg.planning.explain import explain

    return Results(explain(plan))


def _make_plan(
    measured: Fingerprint, spec: DatasetSpec, *, device: str, hours: float | None, workspace: Workspace, licence: Licence,
    **options: Any,
) -> Plan:
    """A plan with expected times, if this machine has the device of the trainings."""
    from autoseg.planning.initial_weights import WeightsPolicy
    from autoseg.planning.planner import make_plan
    from autoseg.planning.timed_plan import make_timed_plan
    from autoseg.training.step_time import MeasuredSteps

    options["weights"] = WeightsPolicy(workspace.weights, commercial=licence == "commercial")
    try:
        timer = MeasuredSteps(workspace, spec.label_scheme(), device)
    except AutosegError as error:
        if hours:
            raise
        logger.warning(f"times are not measured: {error.problem}")
        return make_plan(measured, spec, device=device, **options)
    return make_timed_plan(measured, spec, device=device, timer=timer, hours=hours, **options)


def store_groups(data: Dataset, raw: RawDataset, expression: str) -> bool:
    """Write the patient of each case to dataset.json; whether that changed it. Raises SeveralProblems with the cases that do
    not match."""
    from autoseg.fingerprint.name_groups import NO_GROUPS, find_groups
    from autoseg.io.raw_dataset import update_description

    names = [case.name for case in (*raw.cases, *raw.test_cases)]
    groups: dict[str, str] = {}
    if expression != NO_GROUPS:
        matches = find_groups(expression, names)
        without = [name for name, group in matches.items() if group is None]
        if without:
            raise SeveralProblems(f"{expression!r} finds no group in the names of these cases:", without, "correct --groups")
        groups = {name: group for name, group in matches.items() if group is not None}
    spec = replace(raw.spec, groups=groups, independent_cases=expression == NO_GROUPS)
    if spec != raw.spec:
        update_description(data.description, groups=groups, independent_cases=spec.independent_cases)
        known = f"{len(set(groups.values()))} groups" if groups else "each case is of another patient"
        logger.info(f"{data.description}: {known}")
    return spec != raw.spec


def check_hours(hours: float | None, protocol: Protocol) -> None:
    """Raises AutosegError for a time limit that cannot be kept."""
    if hours is not None and not 0 <= hours < math.inf:
        raise AutosegError(f"a time limit cannot be {hours:g} hours", "give a time above zero, or 0 for no limit")
    if hours and protocol == "benchmark":
        raise AutosegError("the protocol benchmark has the study's steps and sizes, so it cannot have a time limit", "use auto")


def check_request(models: Sequence[str] | None, settings: Mapping[str, str], memory: int | str | None = None) -> None:
    """Find mistakes that need no data, before anything is measured. Raises AutosegError."""
    MODELS.check(*(models or ()))
    if memory is not None:
        from autoseg.planning.hardware import parse_memory

        parse_memory(memory)
    if settings:
        from autoseg.planning.overrides import check_settings

        check_settings(settings, models or MODELS.names())


def check_training(data: Dataset, models: Sequence[str] | None, settings: Mapping[str, str]) -> None:
    """Find mistakes in models and settings of a training before anything is planned. Raises AutosegError."""
    check_request(models, {})
    if settings:
        from autoseg.planning.overrides import check_settings, refuse_at_planning

        refuse_at_planning(settings)
        plan = _plan_before(data)
        check_settings(settings, [*(plan.models if plan else ()), *(models or (() if plan else MODELS.names()))])


def plan_again(
    data: Dataset, plan: Plan, protocol: Protocol, models: Sequence[str], device: str, root: Root, *, preprocess: bool = True
) -> Plan:
    """Plan again, with the models, the limits and the settings of the earlier plan, and more models."""
    settings, memory, hours = _settings_of(plan), _memory_of(plan), _hours_of(plan) if protocol != "benchmark" else None
    same = [f"--set {path}={text}" for path, text in settings.items()]
    same += [f"--memory {memory / 2**30:.3g}G"] if memory else []
    same += [f"--hours {hours:g}"] if hours is not None else []
    same += [f"--licence {plan.licence}"] if plan.licence != "any" else []
    more = f", with {' '.join(same)} as before" if same else ""
    reason = f"is planned for {plan.protocol}" if protocol != plan.protocol else "has changed"
    logger.info(f"{data.name} {reason}: planning it for {protocol} now{more}")
    return plan_and_preprocess(
        data.name, protocol=protocol, models=list(dict.fromkeys([*plan.models, *models])), memory=memory, device=device,
        settings=settings, preprocess=preprocess, hours=hours, licence=plan.licence, root=root,
    )  # fmt: skip


def planning_command(data: Dataset, plan: Plan, *models: str) -> str:
    """The command that adds models to a plan, and changes nothing else."""
    options = [f"--protocol {plan.protocol}", f"--models {','.join([*plan.models, *models])}"]
    options += [f"--set {shlex.quote(f'{path}={text}')}" for path, text in _settings_of(plan).items()]
    memory, hours = _memory_of(plan), _hours_of(plan)
    options += [f"--hours {hours:g}"] if hours is not None else []
    options += [f"--licence {plan.licence}"] if plan.licence != "any" else []
    return " ".join([f"autoseg_plan_and_preprocess {data.number}", *options, *([f"--memory {memory}"] if memory else [])])


def _settings_of(plan: Plan) -> dict[str, str]:
    """What the user set, in the form of --set."""
    return {path: value if isinstance(value, str) else json.dumps(value) for path, value in plan.overrides.items()}


def _memory_of(plan: Plan) -> int | None:
    """The memory limit of the user, None if the planner chose it."""
    from autoseg.planning.overrides import SET_BY_USER

    by_user = any(one.subject == "memory_budget" and one.reason.endswith(SET_BY_USER) for one in plan.decisions)
    return plan.memory_budget if by_user else None


def _hours_of(plan: Plan) -> float | None:
    """The time limit of the user, None if the planner chose it."""
    from autoseg.planning.overrides import SET_BY_USER

    by_user = any(one.subject == "time_budget" and one.reason == SET_BY_USER for one in plan.decisions)
    return plan.time_budget if by_user else None


def _plan_before(data: Dataset) -> Plan | None:
    """The plan that will be replaced; None if there is none that can be read."""
    try:
        return read_artefact(data.plan, Plan)
    except AutosegError:
        return None


def _log_dropped(before: Plan | None, plan: Plan) -> None:
    """Say what the user had decided for the replaced plan and not for this one."""
    if before is None:
        return
    models = [name for name in before.models if name not in plan.models]
    dropped = [f"the models {', '.join(models)}"] if models else []
    dropped += [f"--set {path}={text}" for path, text in _settings_of(before).items() if path not in plan.overrides]
    memory = _memory_of(before)
    dropped += [f"--memory ({memory / 2**30:.1f} GiB)"] if memory and not _memory_of(plan) else []
    hours = _hours_of(before)
    dropped += [f"--hours {hours:g}"] if hours is not None and _hours_of(plan) is None else []
    dropped += [f"--licence {before.licence}"] if before.licence != "any" and plan.licence == "any" else []
    if dropped:
        logger.warning(f"the replaced plan had {'; '.join(dropped)}, which this one does not have")
