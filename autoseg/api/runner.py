"""Train, score and compare every model and fold of several datasets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from autoseg.api.checks import current_plan
from autoseg.api.options import DatasetId, Folds, Models, PathLike, Settings, fold_numbers, model_names, setting_texts
from autoseg.api.planning import check_training, plan_again, plan_and_preprocess
from autoseg.schema.plan import Plan, Protocol, Splits
from autoseg.schema.runner import GridTable, Job
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.runner.engine import Engine

logger = logging.getLogger(__name__)

EngineName = Literal["local", "ray", "slurm"]


def run(
    datasets: DatasetId | Sequence[DatasetId],
    models: Models | None = None,
    folds: Folds | None = None,
    *,
    seeds: Sequence[int] = (),
    engine: EngineName = "local",
    workers: int | None = None,
    gpus_per_run: int = 0,
    address: str | None = None,
    slurm: Mapping[str, str] | None = None,
    retries: int = 2,
    break_lock: bool = False,
    protocol: Protocol | None = None,
    replan: bool = False,
    settings: Settings | None = None,
    pretrained: PathLike | None = None,
    deterministic: bool = False,
    log_to: Sequence[str] = (),
    device: str = "auto",
    watch: Callable[[GridTable], None] = lambda table: None,
    handle_signals: bool = False,
    root: Root = None,
) -> GridTable:
    """Train and score every (dataset, model, fold) that is not done, predict the test images, and compare.

    Each job is its own process. A dataset without a plan, or with a plan for another protocol, is planned first.

    Args:
        datasets: id or name of a dataset, or several.
        models: names of models (default: all of each dataset's plan).
        folds: numbers of folds (default: all).
        seeds: train with each of these seeds. Those besides the plan's own follow when its trainings are done, in
            results/<dataset>/<model>-seed<seed>, with the learning rate that these have searched; comparisons show the spread.
        engine: what starts the jobs: "local" (this machine), "ray" (a cluster) or "slurm".
        workers: jobs at the same time (default: 1; with GPUs all of them).
        gpus_per_run: GPUs of each job.
        address: host:port of a Ray cluster (default: the variable RAY_ADDRESS, else one is started on this machine).
        slurm: submitit's parameters, such as {"slurm_partition": "gpu"}.
        retries: how often a crashed job is restarted.
        break_lock: see `train`; also for the lock of another runner on this root.
        protocol: "auto", "benchmark" or "quick" (default: the plans').
        replan: plan a dataset again, with the same options, if its images, masks or dataset.json have changed since.
        settings: dotted field of the plan -> value, for all jobs: {"training.epochs": 50}.
        pretrained: "auto", "study", "none" or the path of a checkpoint (default: the plans' choice).
        deterministic: see `train`; finished runs that were trained without it do not count as done.
        log_to: names of loggers besides metrics.csv, such as "tensorboard", "mlflow", "wandb".
        device: "auto", "cpu", "cuda" or "mps"; with `gpus_per_run` it is "cuda".
        watch: called with each update of the table.
        handle_signals: for commands: SIGTERM stops the jobs too, and raises SystemExit.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The table of all jobs, done or failed; also in results/grid.json.

    Raises:
        AutosegError: something is missing or unknown; no job was started.
        KeyboardInterrupt: on Ctrl-C; the jobs stop, and the next call resumes them.
    """
    from autoseg.runner.jobs import JobOptions, find_datasets, fold_jobs
    from autoseg.runner.scheduler import run_jobs
    from autoseg.runner.seeds import check_seeds
    from autoseg.training.loggers import check_loggers
    from autoseg.weights.pretrained import CHOICES, weights_file

    if engine not in get_args(EngineName):
        raise AutosegError(f"there is no engine {engine!r}", f"choose one of {', '.join(get_args(EngineName))}")
    if engine == "ray":
        from autoseg.runner.ray_engine import check_cluster

        check_cluster(address)
    check_loggers(log_to)
    if pretrained not in (None, *CHOICES):
        weights_file(str(pretrained))
    root_folder = Workspace.at(root).root
    selected = find_datasets(root_folder, [datasets] if isinstance(datasets, str | int) else datasets)
    names, numbers, texts = model_names(models), fold_numbers(folds), setting_texts(settings)
    check_seeds(seeds, texts, pretrained)
    for dataset in selected:
        check_training(dataset, names, texts)
    for dataset in selected:
        _plan(dataset, names, protocol, device, root_folder, replan)
    jobs = [job for dataset in selected for job in fold_jobs(dataset, names, numbers)]
    for dataset in selected:
        started = {job.model for job in jobs if job.dataset == dataset.name}
        _require_weights(dataset, started, texts, None if pretrained is None else str(pretrained))
        _prepare(dataset, started, texts)
    job_options = JobOptions(
        root=root_folder, device="cuda" if gpus_per_run else device, pretrained=None if pretrained is None else str(pretrained),
        settings=texts, processes=max(1, gpus_per_run), log_to=tuple(log_to), deterministic=deterministic,
        break_lock=break_lock,
    )  # fmt: skip
    job_engine = make_engine(engine, workers, gpus_per_run, address, slurm, root_folder)
    start = partial(run_jobs, retries=retries, watch=watch, handle_signals=handle_signals)
    table = start(jobs, job_options, job_engine)
    more = _jobs_of_seeds(selected, table, seeds, texts, job_options.pretrained)
    if more:
        table = start([*jobs, *more], job_options, job_engine)
    _compare(table, root_folder)
    return table


def grid_status(root: Root = None) -> GridTable:
    """Read the table of jobs of the current or last `run`.

    Args:
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The table of all jobs.

    Raises:
        AutosegError: no jobs were run under this root.
    """
    from autoseg.runner.table import status

    return status(Workspace.at(root).root)


def _jobs_of_seeds(
    datasets: Sequence[Dataset], table: GridTable, seeds: Sequence[int], settings: Mapping[str, str], pretrained: str | None
) -> list[Job]:
    """The jobs of further seeds, for the trainings of the plan's own seed that are done."""
    from autoseg.runner.seeds import other_seeds, seed_jobs

    done = [row.job for row in table.rows if row.state == "done" and not row.job.predicts]
    jobs = []
    for dataset in datasets if seeds else ():
        own = [job for job in done if job.dataset == dataset.name]
        jobs += seed_jobs(dataset, own, other_seeds(dataset, seeds), settings, pretrained)
    return jobs


def _compare(table: GridTable, root: Path) -> None:
    """Compare the models of each dataset that has several. An unfair comparison is skipped with a warning."""
    from autoseg.api.comparison import compare

    finished: dict[str, list[str]] = {}
    for row in table.rows:
        if row.state == "done" and not row.job.predicts:
            finished.setdefault(row.job.dataset, []).append(row.job.model)
    for dataset, models in finished.items():
        if len(set(models)) > 1:
            try:
                compare(dataset, models=list(dict.fromkeys(models)), root=root)
            except AutosegError as error:
                logger.warning(f"{dataset} is not compared: {error}")


def _plan(
    dataset: Dataset, models: Sequence[str] | None, protocol: Protocol | None, device: str, root: Path, replan: bool
) -> None:
    if dataset.plan.exists():
        plan = read_artefact(dataset.plan, Plan, f"autoseg_plan_and_preprocess {dataset.number}")
        if protocol is not None and plan.protocol != protocol:
            plan_again(dataset, plan, protocol, models or [], device, root, preprocess=False)
        else:
            current_plan(dataset, plan, replan, device, root, preprocess=False)
        return
    plan_and_preprocess(dataset.name, protocol=protocol or "auto", models=models, device=device, preprocess=False, root=root)


def _require_weights(dataset: Dataset, models: set[str], settings: Mapping[str, str], pretrained: str | None) -> None:
    """Find out for all models of the protocol benchmark before the first job starts."""
    from autoseg.planning.overrides import apply_overrides
    from autoseg.training.initial_weights import require_weights
    from autoseg.training.train_fold import is_finished

    plan = apply_overrides(read_artefact(dataset.plan, Plan, f"autoseg_plan_and_preprocess {dataset.number}"), settings)
    folds = range(plan.training.folds)
    left = [name for name in sorted(models) if not all(is_finished(dataset.fold(name, fold)) for fold in folds)]
    require_weights(dataset, plan, left, pretrained)


def _prepare(dataset: Dataset, models: set[str], settings: Mapping[str, str]) -> None:
    """Write the arrays of all models once, before the jobs start."""
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.overrides import apply_overrides
    from autoseg.preprocessing.preprocess import preprocess_dataset

    remedy = f"autoseg_plan_and_preprocess {dataset.number}"
    plan = apply_overrides(read_artefact(dataset.plan, Plan, remedy), settings)
    read_artefact(dataset.splits, Splits, remedy)
    for key in sorted({plan.models[model].preprocessing for model in models}):
        preprocess_dataset(dataset, RawDataset.open(dataset), plan.preprocessing[key], content_hash=plan.content_hash)


def make_engine(
    name: EngineName,
    workers: int | None,
    gpus_per_run: int,
    address: str | None,
    slurm: Mapping[str, str] | None,
    root: Path,
) -> Engine:
    """What starts the jobs. Raises AutosegError if this machine or the cluster cannot run as many."""
    from autoseg.runner.engine import Local

    if name == "ray":
        from autoseg.runner.ray_engine import RayEngine

        return RayEngine(address, workers, gpus_per_run)
    if name == "slurm":
        from autoseg.runner.slurm_engine import SlurmEngine

        return SlurmEngine(root / "results" / "slurm", workers, gpus_per_run, slurm or {})
    gpus = 0
    if gpus_per_run:
        import torch

        gpus = torch.cuda.device_count()
    return Local(workers, gpus, gpus_per_run)
