"""Training one fold of one model: what is there already, what it was made from, and a folder that explains itself."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

import autoseg
from autoseg.inference.precision import usable
from autoseg.io.raw_dataset import read_description
from autoseg.models import registry
from autoseg.models.base import SegmentationNetwork
from autoseg.planning.overrides import check_names
from autoseg.preprocessing.array_dataset import ArrayDataset, preprocessing_hash
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Fold, ModelPlan, Plan, Splits
from autoseg.schema.run import RateSearch, RunRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import Dataset, Workspace
from autoseg.training import checkpoint, csv_logger, memory, plot
from autoseg.training.checkpoint import Progress, State, build_network
from autoseg.training.config_hash import config_hash, differences, digest
from autoseg.training.device import resolve
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.graceful_shutdown import graceful_shutdown
from autoseg.training.head_bias import init_head_bias, pixel_shares
from autoseg.training.loggers import RunLoggers
from autoseg.training.losses import Loss
from autoseg.training.memory_format import MemoryFormat, with_memory_format
from autoseg.training.pretrained import Source, fill, find
from autoseg.training.run_lock import run_lock
from autoseg.training.trainer import RunConfig, Trainer

logger = logging.getLogger(__name__)

# What a run leaves in its folder; whatever else lies there is not ours to remove.
_LEFT = (
    checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS, checkpoint.RECORD, checkpoint.PLAN, checkpoint.DATASET,
    checkpoint.SPLITS, csv_logger.NAME, plot.NAME, "validation",
)


def train_fold(
    dataset: Dataset,
    plan: Plan,
    splits: Splits,
    model: str,
    fold: int,
    *,
    device: str = "auto",
    pretrained: str | None = None,
    restart: bool = False,
    team: DistributedContext = SINGLE_PROCESS,
    search: RateSearch | None = None,
    log_to: Sequence[str] = (),
    trial: Path | None = None,
    handle_signals: bool = False,
) -> RunRecord:
    """Train `model` on a fold of prepared data, into the dataset's results folder; returns the finished run's record.

    A run that was cut off goes on where it was, a finished one is left as it is, both only if all that decides the weights
    is the same. pretrained: "auto", "none" or a path instead of the plan's choice. restart: begin again; the earlier run is
    kept until the new one has its first checkpoint. team: the processes that train it together; each calls this, the first
    one writes. search: how the learning rate was found, for the record. log_to: loggers besides metrics.csv (see
    `sinks`). trial: a folder to train in instead, for a run that
    is not one of the dataset's results. handle_signals: for commands: Ctrl-C and SIGTERM write a checkpoint first, then raise
    KeyboardInterrupt or SystemExit(143). Without it signals do what they do in your program; a run they end resumes
    from its last checkpoint.
    Raises AutosegError for what the user can mend.
    """
    check_names(plan, str(dataset.plan))
    model_plan, split = _chosen(plan, splits, model, fold)
    spec = read_description(dataset.description)
    weights = starting_weights(dataset, model_plan, pretrained)
    task = _task(
        dataset,
        plan,
        model_plan=model_plan,
        split=split,
        spec=spec,
        device=team.device(resolve(device)),
        weights=weights,
        fold=fold,
    )
    task = replace(task, team=team, folder=trial or task.folder)
    folder = task.folder
    # What a notebook draws from torch afterwards should not depend on our having trained.
    with (
        run_lock(folder) if team.is_main else nullcontext() as hold,
        torch.random.fork_rng([task.device] if task.device.type == "cuda" else []),
    ):
        if restart and team.is_main:
            _set_aside(folder)
        team.wait()
        state = checkpoint.load_last(folder)
        if state is not None:
            _refuse_other(state, task)
            done = _finished(folder)
            if done is not None:
                logger.info(f"{task.title} is finished already: best Dice {done.best_dice:.3f} (--restart would begin again)")
                return done
        team.wait()
        if hold is not None:
            task = replace(task, check_lock=hold.check)
        task = with_memory_format(task, registry.spec(model), None if state is None else _format_of(state))
        if team.is_main:
            _describe(folder, task.plan, spec, splits)
        record = replace(_record(task, fold, weights), search=search)
        finished = _train(task, record, weights, state, log_to if team.is_main else (), handle_signals)
        team.wait()
        return finished


def _chosen(plan: Plan, splits: Splits, model: str, fold: int) -> tuple[ModelPlan, Fold]:
    if model not in plan.models:
        registry.spec(model)
        raise AutosegError(
            f"the plan of {plan.dataset} does not include {model}, only {', '.join(plan.models)}",
            f"autoseg_plan_and_preprocess {plan.dataset} --models {','.join([*plan.models, model])}",
        )
    if not 0 <= fold < len(splits.folds):
        raise AutosegError(f"there is no fold {fold}", f"{plan.dataset} is split into folds 0 to {len(splits.folds) - 1}")
    return plan.models[model], splits.folds[fold]


def starting_weights(
    dataset: Dataset, model_plan: ModelPlan, pretrained: str | None, quiet: bool = False
) -> Source | None:
    """The weights file a run begins with, None for random ones. quiet: do not say where one could be had."""
    folder = Workspace(dataset.root).weights
    return find(pretrained or model_plan.pretrained, registry.spec(model_plan.model), model_plan.variant, folder, quiet)


def _task(
    dataset: Dataset,
    plan: Plan,
    model_plan: ModelPlan,
    split: Fold,
    spec: DatasetSpec,
    device: torch.device,
    weights: Source | None,
    fold: int,
) -> RunConfig:
    preparation = plan.preprocessing[model_plan.preprocessing]
    store = ArrayDataset.open(dataset.array_folder(preparation.key), preprocessing_hash(preparation, plan.content_hash))
    missing = sorted({*split.train, *split.validation} - set(store.cases))
    if missing or not split.train:
        raise SeveralProblems(
            f"fold {fold} in {dataset.splits} does not fit the prepared data:",
            [f"there is no case {case!r}" for case in missing] or ["it has no training cases"],
            "correct the file, or delete it and run autoseg_plan_and_preprocess",
        )
    scheme = spec.label_scheme()
    parts = config_hash(plan, model_plan, scheme, split, weights.hash() if weights else "")
    title = f"{dataset.name}, {model_plan.model}, fold {fold}"
    return RunConfig(
        folder=dataset.fold(model_plan.model, fold),
        title=title,
        plan=plan,
        model_plan=model_plan,
        scheme=scheme,
        store=store,
        split=split,
        device=device,
        identity=parts,
    )


def _record(task: RunConfig, fold: int, weights: Source | None) -> RunRecord:
    half = usable(task.model_plan.precision, task.device)
    return RunRecord(
        dataset=task.plan.dataset,
        model=task.model_plan.model,
        variant=task.model_plan.variant,
        fold=fold,
        protocol=task.plan.protocol,
        identity=digest(task.identity),
        seed=task.plan.training.seed,
        device=str(task.device),
        precision="fp32" if half is None else {torch.float16: "fp16", torch.bfloat16: "bf16"}[half],
        status="running",
        epochs_planned=task.plan.training.epochs,
        pretrained=weights.description if weights else "",
        memory_format=task.model_plan.memory_format,
        learning_rate=task.model_plan.learning_rate,
        batch_size=task.model_plan.batch_size,
        processes=task.team.size,
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _train(
    task: RunConfig, record: RunRecord, weights: Source | None, state: State | None, log_to: Sequence[str], handle_signals: bool
) -> RunRecord:
    torch.manual_seed(task.plan.training.seed)
    memory.begin(task.device)
    network = build_network(task.model_plan, task.plan.preprocessing[task.model_plan.preprocessing], task.scheme)
    record = replace(record, parameters=sum(parameter.numel() for parameter in network.parameters()))
    if state is None:
        _begin(network, task, weights)
    done = 0 if state is None else int(state["progress"]["epoch"])
    sinks = RunLoggers(log_to, task.folder, record, done)
    trainer = Trainer(task, network, lambda progress: writer.on_checkpoint(progress), sinks.add)
    writer = _Record(task, record, trainer.steps_per_epoch)
    if state is not None:
        trainer.resume(state)
    if task.team.is_main:
        _announce(task, record, trainer.progress)
    writer.write("running", trainer.progress)
    try:
        with graceful_shutdown(handle_signals) as stop:
            progress = trainer.run(stop)
    except BaseException:
        writer.write("stopped", writer.progress)
        raise
    finally:
        sinks.close()
    if task.team.is_main:
        (task.folder / checkpoint.PREVIOUS).unlink(missing_ok=True)
    finished = writer.write("finished", progress)
    if stop.requested:
        stop.obey()
    return finished


def _begin(network: SegmentationNetwork, task: RunConfig, weights: Source | None) -> None:
    """The weights of the first step."""
    shares = pixel_shares(task.store, task.split.train, task.scheme)
    channels = task.plan.preprocessing[task.model_plan.preprocessing].channels
    init_head_bias(network, channels, shares, Loss(task.plan.training.loss, task.scheme).sigmoid)
    if weights is not None:
        fill(network, weights)


class _Record:
    """run.json, which speaks of what the checkpoints hold."""

    def __init__(self, task: RunConfig, record: RunRecord, steps_per_epoch: int) -> None:
        self._folder = task.folder
        self._leads = task.team.is_main
        self._record = record
        self._steps_per_epoch = steps_per_epoch
        self.progress = Progress()

    def on_checkpoint(self, progress: Progress) -> None:
        self.write("running", progress)
        # From here on the new run can be gone on with, and the one it replaces is not needed.
        shutil.rmtree(_aside(self._folder), ignore_errors=True)

    def write(self, status: Literal["running", "finished", "stopped"], progress: Progress) -> RunRecord:
        self.progress = replace(progress)
        begun = progress.epoch * self._steps_per_epoch + progress.step
        trained = progress.seconds - progress.validating
        record = replace(
            self._record,
            status=status,
            epochs_done=progress.epoch,
            best_epoch=progress.best_epoch,
            best_dice=max(progress.best_dice, 0.0),
            dice=dict(progress.dice),
            seconds=progress.seconds,
            steps=begun - progress.skipped,
            epoch_seconds=(trained - progress.epoch_seconds) / max(1, progress.epoch),
            images_per_second=begun * self._record.batch_size / trained if trained > 0 else 0.0,
            peak_memory=progress.peak_memory,
            peak_device_memory=progress.peak_device_memory,
        )
        if self._leads:
            write_artefact(self._folder / checkpoint.RECORD, record)
        return record


def _announce(task: RunConfig, record: RunRecord, progress: Progress) -> None:
    form = "" if record.memory_format == "contiguous" else f", {record.memory_format}"
    where = f"{record.device} ({record.precision}{form})"
    where += f", {task.team.size} processes" if task.team.size > 1 else ""
    images = f"{len(task.split.train)} training and {len(task.split.validation)} held-out cases"
    size = f"{record.parameters / 1e6:.1f} M parameters"
    logger.info(f"{task.title}: {size}, {images}, {record.epochs_planned} epochs on {where}")
    if progress.epoch or progress.step:
        logger.info(f"going on after epoch {progress.epoch}" + (f", step {progress.step}" if progress.step else ""))


def _format_of(state: State) -> MemoryFormat:
    # Checkpoints did not say before there was a choice.
    return "channels_last" if state.get("memory_format") == "channels_last" else "contiguous"


def _refuse_other(state: State, task: RunConfig) -> None:
    changed = differences(state["identity"], task.identity)
    wanted, before = task.model_plan.memory_format, _format_of(state)
    if wanted not in ("auto", before):
        changed.append(f"model.memory_format: {before} -> {wanted}")
    if changed:
        raise SeveralProblems(
            f"{task.folder} holds a run that was made differently, and cannot be gone on with. Then -> now:",
            changed,
            "undo the change, or begin again with --restart (gives up that run)",
        )


def _finished(folder: Path) -> RunRecord | None:
    if not (folder / checkpoint.RECORD).exists():
        return None
    record = read_artefact(folder / checkpoint.RECORD, RunRecord, "delete it: the checkpoint is enough to go on")
    return record if record.status == "finished" else None


def _describe(folder: Path, plan: Plan, spec: DatasetSpec, splits: Splits) -> None:
    write_artefact(folder / checkpoint.PLAN, plan)
    write_artefact(folder / checkpoint.DATASET, spec)
    write_artefact(folder / checkpoint.SPLITS, splits)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _set_aside(folder: Path) -> None:
    """Move an earlier run beside the folder. Where one lies there already, the run here never got to a checkpoint."""
    aside = _aside(folder)
    if aside.exists():
        for name in _LEFT:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    aside.mkdir()
    for name in _LEFT:
        if (folder / name).exists():
            (folder / name).rename(aside / name)
