"""Repeat a published study, or one of your own, with one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoseg.api.options import Models, PathLike, model_names
from autoseg.schema.runner import GridTable
from autoseg.schema.study import Scale, StudyCheck, StudyRecord
from autoseg.support.errors import SeveralProblems
from autoseg.support.workspace import Root

if TYPE_CHECKING:
    from autoseg.api.runner import EngineName

logger = logging.getLogger(__name__)


def check_study(
    study: str,
    *,
    scale: Scale = "full",
    data: PathLike | None = None,
    use: Mapping[str, str] | None = None,
    datasets: Sequence[str] | None = None,
    models: Models | None = None,
    missing_weights: Literal["refuse", "random"] = "refuse",
    mock_service: bool = False,
    send_images_to: str | None = None,
    heat_maps: bool = True,
    hours: float | None = None,
    memory: int | str | None = None,
    device: str = "auto",
    root: Root = None,
) -> StudyCheck:
    """Find everything a study lacks (data, weights, packages, hours, memory) without training anything.

    Datasets that are there are converted and planned, which measures hours and memory.

    Args:
        study: name of a study that comes with autoseg, or a YAML file.
        scale: see `run_study`.
        data: see `run_study`.
        use: see `run_study`.
        datasets: see `run_study`.
        models: see `run_study`.
        missing_weights: see `run_study`.
        mock_service: see `run_study`.
        send_images_to: see `run_study`.
        heat_maps: see `run_study`.
        hours: see `run_study`.
        memory: see `run_study`.
        device: see `run_study`.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        Hours and memory of each training that is left, and what is missing.

    Raises:
        AutosegError: the study file has faults, or a dataset cannot be converted.
    """
    from autoseg.api.study_plan import StudyOptions, plan_study, set_up

    options = StudyOptions(
        scale=scale, data=None if data is None else Path(data), use=dict(use or {}), datasets=_names(datasets),
        models=_names(model_names(models)), missing_weights=missing_weights, mock_service=mock_service,
        send_images_to=send_images_to, heat_maps=heat_maps, hours=hours, memory=memory, device=device,
    )  # fmt: skip
    setup = set_up(study, options, root)
    return plan_study(setup).check


def run_study(
    study: str,
    *,
    scale: Scale = "full",
    data: PathLike | None = None,
    use: Mapping[str, str] | None = None,
    datasets: Sequence[str] | None = None,
    models: Models | None = None,
    missing_weights: Literal["refuse", "random"] = "refuse",
    mock_service: bool = False,
    send_images_to: str | None = None,
    confirm: Callable[[str], bool] | None = None,
    heat_maps: bool = True,
    hours: float | None = None,
    memory: int | str | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    gpus_per_run: int = 0,
    address: str | None = None,
    slurm: Mapping[str, str] | None = None,
    retries: int = 2,
    device: str = "auto",
    watch: Callable[[GridTable], None] = lambda table: None,
    handle_signals: bool = False,
    root: Root = None,
) -> StudyRecord:
    """Convert, plan, train, score and compare everything a study has, and put its published numbers next to ours.

    What is missing is listed before anything starts. The same call resumes. Plans and results are in
    <root>/studies/<name>, with a root of its own for each seed, so yours are not replaced.

    Args:
        study: name of a study that comes with autoseg ("borst_kounev_2026", "zhang_2025"), or a YAML file.
        scale: "full", or "small": fewer and smaller images, few steps, smallest variants; every table says so.
        data: folder of the published archives (default: <root>/downloads).
        use: dataset of the study -> id or name of a dataset of yours in its place.
        datasets: only these datasets of the study.
        models: only these models.
        missing_weights: "refuse" to start without published weights, or start from "random" ones; the deviations say so.
        mock_service: a stand-in answers for the zero-shot model: nothing is sent, and its numbers are no model's.
        send_images_to: must be the service's name before any image is sent to it.
        confirm: called with a question that contains the number of requests; returns whether to send them (default: send).
        heat_maps: draw heat maps of the worst cases.
        hours: refuse to start if the trainings are expected to take longer, one after the other.
        memory: limit for a training, in bytes or as "8G" (default: by the device).
        engine: see `run`.
        workers: see `run`.
        gpus_per_run: see `run`.
        address: see `run`.
        slurm: see `run`.
        retries: see `run`.
        device: "auto", "cpu", "cuda" or "mps".
        watch: see `run`.
        handle_signals: see `run`.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        Our numbers next to the published ones, and the deviations from the protocol; also in study.json, .md and .csv.

    Raises:
        AutosegError: the study file has faults, or something is missing; the message lists all of it, and nothing started.
        KeyboardInterrupt: on Ctrl-C; the jobs stop, and the next call resumes them.
    """
    from autoseg.api.study_plan import StudyOptions, plan_study, set_up
    from autoseg.api.study_results import collect_results, train_all
    from autoseg.study.tables import write_results

    options = StudyOptions(
        scale=scale, data=None if data is None else Path(data), use=dict(use or {}), datasets=_names(datasets),
        models=_names(model_names(models)), missing_weights=missing_weights, mock_service=mock_service,
        send_images_to=send_images_to, heat_maps=heat_maps, hours=hours, memory=memory, device=device,
    )  # fmt: skip
    setup = set_up(study, options, root)
    _raise_problems(study, setup.problems, "hours and memory are not known yet: autoseg_study ... --check measures them")
    planned = plan_study(setup)
    _raise_problems(study, planned.check.problems, "see autoseg_study ... --check")
    logger.info(planned.check.summary())
    failed = train_all(
        setup, planned, engine=engine, workers=workers, gpus_per_run=gpus_per_run, address=address, slurm=slurm,
        retries=retries, watch=watch, handle_signals=handle_signals,
    )  # fmt: skip
    record = collect_results(setup, planned, failed, confirm)
    write_results(setup.folders.folder, record)
    logger.info(f"tables and deviations in {setup.folders.folder / 'study.md'}")
    return record


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _raise_problems(study: str, problems: Sequence[str], remedy: str) -> None:
    if problems:
        raise SeveralProblems(f"{study} cannot start:", problems, remedy)
