"""Find the best way to train for a dataset in a number of hours."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from autoseg.api.checks import current_fingerprint, current_plan
from autoseg.api.options import DatasetId, Models, model_names
from autoseg.api.planning import check_request, log_missing_weights, plan_and_preprocess
from autoseg.api.runner import EngineName, make_engine
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import Results
from autoseg.schema.plan import Licence, Plan, Splits
from autoseg.schema.runner import GridTable, Job
from autoseg.schema.selection import ModelSelection
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import METRICS, MODELS
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.planning.time_budget import StepTimer
    from autoseg.runner.jobs import JobOptions
    from autoseg.selection.candidates import Proposal
    from autoseg.selection.search import Request

logger = logging.getLogger(__name__)

Watch = Callable[[GridTable], None]


def select(
    datasets: DatasetId | Sequence[DatasetId],
    *,
    hours: float,
    models: Models | None = None,
    objective: str = "dice",
    seed: int = 0,
    engine: EngineName = "local",
    workers: int | None = None,
    gpus_per_run: int = 0,
    address: str | None = None,
    slurm: Mapping[str, str] | None = None,
    retries: int = 2,
    licence: Licence = "any",
    deterministic: bool = False,
    break_lock: bool = False,
    device: str = "auto",
    watch: Watch = lambda table: None,
    handle_signals: bool = False,
    root: Root = None,
) -> Results[ModelSelection]:
    """Try many ways to train, each for a short time, the better ones for longer; confirm the best on cases no decision saw.

    The same call continues an interrupted selection; with more hours it adds longer trainings or more candidates. Written to
    <results>/selection/: selection.json and selection.html. The recommended candidate becomes `model="best"` of `predict`.

    Args:
        datasets: id or name of a dataset, or several, one after the other.
        hours: for each dataset, from the first call on; measured, not enforced.
        models: names of models (default: all that are usable).
        objective: metric by which candidates are compared, such as "dice", "nsd", "cldice" or "hd95".
        seed: of the parts of the cases and of every training.
        engine: see `run`.
        workers: see `run`.
        gpus_per_run: see `run`.
        address: see `run`.
        slurm: see `run`.
        retries: see `run`.
        licence: "commercial": start from no published weights whose licence is not known to allow commercial use.
        deterministic: see `train`.
        break_lock: see `train`.
        device: "auto", "cpu", "cuda" or "mps"; with `gpus_per_run` it is "cuda".
        watch: called with each update of the table of jobs.
        handle_signals: for commands: SIGTERM stops the jobs too, and raises SystemExit.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        One selection for each dataset: rungs, confirmed candidates with intervals and tests, the recommended one.

    Raises:
        AutosegError: the hours are too few, a name is unknown, or what is there is of other images, folds or another seed.
        KeyboardInterrupt: on Ctrl-C; the jobs stop, and the next call continues.
    """
    from autoseg.runner.jobs import JobOptions, find_datasets
    from autoseg.selection.page import write_page
    from autoseg.selection.search import path_of, select_model
    from autoseg.training.run_lock import run_lock

    if not 0 < hours < math.inf:
        raise AutosegError(f"a selection cannot take {hours:g} hours", "give a time above zero: --hours 4")
    if engine not in get_args(EngineName):
        raise AutosegError(f"there is no engine {engine!r}", f"choose one of {', '.join(get_args(EngineName))}")
    METRICS.get(objective)
    names = model_names(models) or [name for name, _ in MODELS.usable()]
    check_request(names, {})
    root_folder = Workspace.at(root).root
    job_options = JobOptions(
        root=root_folder, device="cuda" if gpus_per_run else device, processes=max(1, gpus_per_run),
        deterministic=deterministic, break_lock=break_lock,
    )  # fmt: skip
    start_engine = partial(make_engine, engine, workers, gpus_per_run, address, slurm, root_folder)
    selections: Results[ModelSelection] = Results()
    for dataset in find_datasets(root_folder, [datasets] if isinstance(datasets, str | int) else datasets):

        def run(jobs: Sequence[Job], seen: Watch, dataset: Dataset = dataset) -> GridTable:
            from autoseg.runner.scheduler import run_jobs

            def show(table: GridTable) -> None:
                seen(table)
                watch(table)

            _preprocess(dataset, jobs)
            return run_jobs(jobs, job_options, start_engine(), retries=retries, watch=show, handle_signals=handle_signals)

        with run_lock(path_of(dataset).parent, break_lock):
            request = _request_for(dataset, names, job_options, licence)
            parallel = _parallel(engine, workers, gpus_per_run)
            selection = select_model(request(hours=hours, objective=objective, seed=seed, run=run, parallel=parallel))
            write_page(path_of(dataset).with_suffix(".html"), selection)
        selections.append(selection)
    return selections


def _parallel(engine: str, workers: int | None, gpus_per_run: int) -> int:
    """How many jobs run at full speed at the same time. On one machine's processor they share the cores."""
    if engine == "local" and not gpus_per_run:
        return 1
    if workers is not None:
        return workers
    if engine == "local":
        import torch

        return max(1, torch.cuda.device_count() // gpus_per_run)
    return 1


def _preprocess(dataset: Dataset, jobs: Sequence[Job]) -> None:
    """Write the arrays of the jobs once, before they start."""
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.preprocessing.preprocess import preprocess_dataset

    plans = [read_artefact(dataset.trial(trial) / "plan.json", Plan) for trial in dict.fromkeys(job.trial for job in jobs)]
    configs = {config.key: (config, plan.content_hash) for plan in plans for config in plan.preprocessing.values()}
    for config, content_hash in configs.values():
        preprocess_dataset(dataset, RawDataset.open(dataset), config, content_hash=content_hash)


def _request_for(
    dataset: Dataset, models: Sequence[str], job_options: JobOptions, licence: Licence
) -> Callable[..., Request]:
    """What a selection needs of the dataset. A dataset without a plan is planned first, for its folds."""
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.selection.search import Request
    from autoseg.training.step_time import MeasuredSteps

    root, device = job_options.root, job_options.device
    if dataset.plan.exists():
        plan = read_artefact(dataset.plan, Plan, f"autoseg_plan_and_preprocess {dataset.number}")
    else:
        first = models[0]
        plan = plan_and_preprocess(dataset.name, models=[first], device=device, preprocess=False, licence=licence, root=root)
    current_plan(dataset, plan, False, device, root, preprocess=False)
    fingerprint, spec = current_fingerprint(dataset, plan), RawDataset.open(dataset).spec
    splits = read_artefact(dataset.splits, Splits, f"autoseg_plan_and_preprocess {dataset.number}")
    timer = MeasuredSteps(Workspace.at(root), spec.label_scheme(), device)
    source = _Source(
        dataset=dataset, models=tuple(models), fingerprint=fingerprint, spec=spec, splits=splits, device=device,
        licence=licence, timer=timer,
    )  # fmt: skip
    return partial(
        Request, dataset=dataset, spec=spec, fingerprint=fingerprint, splits=splits, models=tuple(models),
        machine=timer.machine, propose=partial(_propose, source),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What candidates are planned from."""

    dataset: Dataset
    models: tuple[str, ...]
    fingerprint: Fingerprint
    spec: DatasetSpec
    splits: Splits
    device: str
    licence: Licence
    timer: StepTimer


def _propose(source: _Source, seconds: float) -> Proposal:
    """The candidates for trainings of a fold of so many seconds."""
    from autoseg.planning.initial_weights import WeightsPolicy
    from autoseg.planning.planner import make_plan
    from autoseg.planning.timed_plan import make_timed_plan
    from autoseg.selection.candidates import propose
    from autoseg.training.train_fold import starting_weights

    dataset, fingerprint, spec, splits = source.dataset, source.fingerprint, source.spec, source.splits
    weights = WeightsPolicy(Workspace.at(dataset.root).weights, commercial=source.licence == "commercial")
    # Folds of autoseg are planned for by their number.
    options: dict[str, Any] = {"weights": weights, "splits": splits if splits.given else None, "device": source.device}

    def plan(model: str, settings: Mapping[str, str], *, timed: bool) -> Plan:
        if not timed:
            return make_plan(fingerprint, spec, "auto", [model], settings=settings, **options)
        fitted = make_timed_plan(
            fingerprint, spec, "auto", [model], settings=settings, timer=source.timer, hours=seconds / 3600,
            may_freeze=False, **options,
        )
        log_missing_weights(dataset, fitted, f"{model}:{fitted.models[model].variant}")
        return fitted

    def has_weights(plan: Plan, model: str) -> bool:
        return starting_weights(dataset, plan, model, None, quiet=True) is not None

    return propose(source.models, plan, source.timer, fingerprint, has_weights)
