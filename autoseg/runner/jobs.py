"""The jobs of the runner, their commands, and their state on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.schema.plan import Plan, Splits
from autoseg.schema.prediction import PredictionRecord
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
    """Options of every job."""

    root: Path
    device: str = "auto"
    pretrained: str | None = None
    settings: Mapping[str, str] | None = None
    processes: int = 1
    log_to: tuple[str, ...] = ()
    deterministic: bool = False
    break_lock: bool = False


def fold_jobs(dataset: Dataset, models: Sequence[str] | None, folds: Sequence[int] | None) -> list[Job]:
    """The jobs of a dataset, grouped by model. None: all models of the plan, all folds of the splits.

    Raises AutosegError if the plan has no such model or the splits no such fold.
    """
    remedy = f"autoseg_plan_and_preprocess {dataset.number}"
    plan, splits = read_artefact(dataset.plan, Plan, remedy), read_artefact(dataset.splits, Splits, remedy)
    selected = list(plan.models) if models is None else list(models)
    missing = [model for model in selected if model not in plan.models]
    if missing:
        raise AutosegError(
            f"the plan of {dataset.name} is for {', '.join(plan.models)}, not for {', '.join(missing)}",
            f"{remedy} --protocol {plan.protocol} --models {','.join([*plan.models, *missing])}",
        )
    numbers = range(len(splits.folds)) if folds is None else folds
    absent = [fold for fold in numbers if not 0 <= fold < len(splits.folds)]
    if absent:
        raise AutosegError(f"there is no fold {absent[0]}", f"{dataset.name} is split into folds 0 to {len(splits.folds) - 1}")
    return [Job(dataset.name, model, fold) for model in selected for fold in numbers]


def prediction_jobs(root: Path, jobs: Iterable[Job]) -> list[Job]:
    """One prediction job for each model of a dataset with test images; none for trials."""
    predictions = []
    for dataset, model in dict.fromkeys((job.dataset, job.model) for job in jobs if not job.trial):
        images = images_folder(Dataset(root, dataset), "Ts")
        if images.is_dir() and any(images.iterdir()):
            predictions.append(Job(dataset, model, -1))
    return predictions


def folder_of(root: Path, job: Job) -> Path:
    """The folder a job writes to."""
    dataset = Dataset(root, job.dataset)
    if job.trial:
        return dataset.trial(job.trial) / f"fold_{job.fold}"
    return dataset.model(job.model) / _PREDICTIONS if job.predicts else dataset.fold(job.model, job.fold)


def log_of(root: Path, job: Job) -> Path:
    """The file with the output of a job. Predictions replace their folder, so their log is next to it."""
    folder = folder_of(root, job)
    return folder.with_name(f"{_PREDICTIONS}.log") if job.predicts else folder / LOG


def command_of(job: Job, job_options: JobOptions) -> list[str]:
    """The command line of a job."""
    dataset = Dataset(job_options.root, job.dataset)
    shared = ["--root", str(job_options.root), "--device", job_options.device]
    if job.predicts:
        paths = ["-i", str(images_folder(dataset, "Ts")), "-o", str(folder_of(job_options.root, job))]
        return [sys.executable, "-c", _ENTER.format(command="predict"), *paths, "-d", job.dataset, "-m", job.model, *shared]
    options = ["--trial", job.trial] if job.trial else _settings(job_options)
    if job_options.deterministic:
        options.append("--deterministic")
    if job_options.break_lock:
        options.append("--break-lock")
    if job_options.log_to:
        options += ["--log-to", ",".join(job_options.log_to)]
    enter = [sys.executable, "-c", _ENTER.format(command="train")]
    if job_options.processes > 1:
        torchrun = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(job_options.processes),
            "--no-python",
        ]
        enter = [sys.executable, *torchrun, *enter]
    return [*enter, job.dataset, job.model, str(job.fold), *shared, *options]


def _settings(job_options: JobOptions) -> list[str]:
    """What a trial's own plan says for a trial."""
    options = ["--pretrained", job_options.pretrained] if job_options.pretrained else []
    for key, value in (job_options.settings or {}).items():
        options += ["--set", f"{key}={value}"]
    return options


def is_done(root: Path, job: Job, deterministic: bool = False) -> bool:
    """Whether the results of a job exist and were made from the present plan's data and splits: a finished run with scores of
    its held-out cases, or predictions of the present test images by the present networks. deterministic: only a run that
    repeats to the last bit counts."""
    folder = folder_of(root, job)
    if job.predicts:
        return (folder / "prediction.json").exists() and _predictions_are_current(root, job)
    record = record_of(root, job)
    if record is None or record.status != "finished" or not (folder / "validation" / "scores.json").exists():
        return False
    if deterministic and not record.deterministic:
        return False
    dataset = Dataset(root, job.dataset)
    inputs = (folder.parent / "plan.json", folder.parent / "splits.json") if job.trial else (dataset.plan, dataset.splits)
    return _is_of_current_data(*inputs, folder, job.fold)


def record_of(root: Path, job: Job) -> RunRecord | None:
    """The run.json of a job, None if there is none yet."""
    path = folder_of(root, job) / "run.json"
    return read_artefact(path, RunRecord, f"delete {path}, or train again with --restart") if path.exists() else None


def with_progress(root: Path, row: JobRow) -> JobRow:
    """The row with the progress of its run."""
    record = None if row.job.predicts else record_of(root, row.job)
    if record is None:
        return row
    return replace(row, epochs_done=record.epochs_done, epochs_planned=record.epochs_planned, micro_dice=record.micro_dice)


def find_datasets(root: Path, datasets: Sequence[str | int]) -> list[Dataset]:
    """The datasets with these ids or names, without duplicates."""
    workspace = Workspace.at(root)
    return list(dict.fromkeys(workspace.dataset(which) for which in datasets))


def _is_of_current_data(plan: Path, splits: Path, folder: Path, fold: int) -> bool:
    """Whether a run was trained on the data and the fold of this plan and these splits."""
    try:
        trained, planned = (read_artefact(path, Plan) for path in (folder / "plan.json", plan))
        before, now = (read_artefact(path, Splits).folds for path in (folder / "splits.json", splits))
    except AutosegError:
        return False
    return trained.content_hash == planned.content_hash and before[fold : fold + 1] == now[fold : fold + 1]


def _predictions_are_current(root: Path, job: Job) -> bool:
    from autoseg.prediction.inputs import find_jobs
    from autoseg.prediction.pipeline import content_hash

    dataset, folder = Dataset(root, job.dataset), folder_of(root, job)
    try:
        record = read_artefact(folder / "prediction.json", PredictionRecord)
        plan = read_artefact(dataset.plan, Plan)
        records = [path for fold in dataset.runs([job.model]) if (path := fold / "run.json").is_file()]
        runs = [read_artefact(path, RunRecord) for path in records]
        images = sorted(map(content_hash, find_jobs(images_folder(dataset, "Ts"), plan.channels, output=folder)))
    except (AutosegError, OSError):
        return False
    identities = {f"{run.model}/fold_{run.fold}": run.identity for run in runs}
    return record.identities == identities and sorted(case.sha256 for case in record.cases) == images
