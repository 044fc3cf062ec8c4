"""Which runs a grid consists of, and what can be seen of each on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.schema.plan import Plan, Splits
from autoseg.schema.run import RunRecord
from autoseg.schema.runner import Job, JobRow
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, Workspace, images_folder

LOG = "autoseg_train.log"
_PREDICTIONS = "predictions"
_ENTER = "import sys; sys.argv[0] = 'autoseg_{command}'; from autoseg.cli.{command} import main; raise SystemExit(main())"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What every run of a grid is started with."""

    root: Path
    device: str = "auto"
    pretrained: str | None = None
    settings: Mapping[str, str] | None = None
    processes: int = 1
    log_to: tuple[str, ...] = ()


def fold_jobs(dataset: Dataset, models: Sequence[str] | None, folds: Sequence[int] | None) -> list[Job]:
    """A dataset's cells, folds of a model together. None: all of the plan, all of the splits.

    Raises AutosegError where plan or splits lack one.
    """
    remedy = f"autoseg_plan_and_preprocess {dataset.number}"
    plan, splits = read_artefact(dataset.plan, Plan, remedy), read_artefact(dataset.splits, Splits, remedy)
    chosen = list(plan.models) if models is None else list(models)
    missing = [model for model in chosen if model not in plan.models]
    if missing:
        raise AutosegError(
            f"the plan of {dataset.name} is for {', '.join(plan.models)}, not for {', '.join(missing)}",
            f"{remedy} --protocol {plan.protocol} --models {','.join([*plan.models, *missing])}",
        )
    numbers = range(len(splits.folds)) if folds is None else folds
    absent = [fold for fold in numbers if not 0 <= fold < len(splits.folds)]
    if absent:
        raise AutosegError(f"there is no fold {absent[0]}", f"{dataset.name} is split into folds 0 to {len(splits.folds) - 1}")
    return [Job(dataset.name, model, fold) for model in chosen for fold in numbers]


def prediction_jobs(root: Path, jobs: Iterable[Job]) -> list[Job]:
    """One for each model of a dataset that has test images."""
    found = []
    for dataset, model in dict.fromkeys((job.dataset, job.model) for job in jobs):
        images = images_folder(Dataset(root, dataset), "Ts")
        if images.is_dir() and any(images.iterdir()):
            found.append(Job(dataset, model, -1))
    return found


def folder_of(root: Path, job: Job) -> Path:
    """Where a cell's run works."""
    dataset = Dataset(root, job.dataset)
    return dataset.results / job.model / _PREDICTIONS if job.predicts else dataset.fold(job.model, job.fold)


def log_of(root: Path, job: Job) -> Path:
    """What a cell's run says. Not inside a folder that predictions replace."""
    folder = folder_of(root, job)
    return folder.with_name(f"{_PREDICTIONS}.log") if job.predicts else folder / LOG


def command_of(job: Job, job_options: JobOptions) -> list[str]:
    """The process that does a cell."""
    dataset = Dataset(job_options.root, job.dataset)
    shared = ["--root", str(job_options.root), "--device", job_options.device]
    if job.predicts:
        where = ["-i", str(images_folder(dataset, "Ts")), "-o", str(folder_of(job_options.root, job))]
        return [sys.executable, "-c", _ENTER.format(command="predict"), *where, "-d", job.dataset, "-m", job.model, *shared]
    options = ["--pretrained", job_options.pretrained] if job_options.pretrained else []
    for key, value in (job_options.settings or {}).items():
        options += ["--set", f"{key}={value}"]
    if job_options.log_to:
        options += ["--log-to", ",".join(job_options.log_to)]
    enter = [sys.executable, "-c", _ENTER.format(command="train")]
    if job_options.processes > 1:
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job_options.processes), "--no-python"]
        enter = [sys.executable, *several, *enter]
    return [*enter, job.dataset, job.model, str(job.fold), *shared, *options]


def is_done(root: Path, job: Job) -> bool:
    """Whether a cell's results are there: a finished run with the scores of its held-out cases, or predictions."""
    folder = folder_of(root, job)
    if job.predicts:
        return (folder / "prediction.json").exists() and _as_new_as_the_folds(root, job)
    record = record_of(root, job)
    return record is not None and record.status == "finished" and (folder / "validation" / "scores.json").exists()


def record_of(root: Path, job: Job) -> RunRecord | None:
    """What a cell's run says of itself, None where there is none yet."""
    path = folder_of(root, job) / "run.json"
    return read_artefact(path, RunRecord, f"delete {path}, or train again with --restart") if path.exists() else None


def refreshed(root: Path, row: JobRow) -> JobRow:
    """A row with what its run has come to."""
    record = None if row.job.predicts else record_of(root, row.job)
    if record is None:
        return row
    return replace(
        row, epochs_done=record.epochs_done, epochs_planned=record.epochs_planned, best_dice=record.best_dice
    )


def named(root: Path, datasets: Sequence[str | int]) -> list[Dataset]:
    """Datasets by id or name, each once."""
    workspace = Workspace.at(root)
    return list(dict.fromkeys(workspace.dataset(which) for which in datasets))


def _as_new_as_the_folds(root: Path, job: Job) -> bool:
    made = (folder_of(root, job) / "prediction.json").stat().st_mtime
    weights = (Dataset(root, job.dataset).results / job.model).glob("fold_*/best.pt")
    return all(path.stat().st_mtime <= made for path in weights)
