"""Train one fold of one model: resume or refuse an earlier run, write the results folder."""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

import autoseg
from autoseg.inference import precision
from autoseg.inference.activation import Activation, output_activation
from autoseg.io.raw_dataset import read_description
from autoseg.models import registry
from autoseg.models.base import SegmentationNetwork
from autoseg.planning.overrides import check_names
from autoseg.preprocessing.array_dataset import ArrayDataset, preprocessing_hash
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.plan import Fold, ModelPlan, Plan, Splits
from autoseg.schema.run import RateSearch, RunRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, remove_leftovers, write_artefact
from autoseg.support.workspace import Dataset, Workspace
from autoseg.training import checkpoint, extension, memory, replaced_run
from autoseg.training.checkpoint import Progress, State, build_network
from autoseg.training.config_hash import config_hash, differences, digest
from autoseg.training.deterministic import deterministic_algorithms
from autoseg.training.device import resolve
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.graceful_shutdown import graceful_shutdown
from autoseg.training.head_bias import class_frequencies, init_head_bias
from autoseg.training.initial_weights import (
    record_weights,
    require_weights,
    warn_other_normalisation,
    without_transfer,
)
from autoseg.training.loggers import RunLoggers
from autoseg.training.losses import Loss
from autoseg.training.memory_format import MemoryFormat, with_memory_format
from autoseg.training.run_lock import run_lock
from autoseg.training.selection import choices_made, training_split
from autoseg.training.trainer import RunConfig, Trainer
from autoseg.weights.pretrained import WeightsSource, find_weights, load_weights

logger = logging.getLogger(__name__)


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
    quiet_weights: bool = False,
    later_epochs: int = 0,
    extend: bool = False,
    deterministic: bool = False,
    break_lock: bool = False,
) -> RunRecord:
    """Train `model` on a fold of preprocessed data, into the dataset's results folder. Returns the record of the finished run.

    An interrupted run is resumed and a finished one is not changed, if all inputs are the same (`config_hash`).
    pretrained: "auto", "study", "none" or a path, not the plan's choice. restart: train again; the earlier run is kept until
    the new one has its first checkpoint. team: the processes that train together; each calls this, the main one writes.
    search: the learning rate search, for the record. log_to: loggers in addition to metrics.csv (see `loggers`). trial: folder
    to train in instead of the results. handle_signals: on Ctrl-C and SIGTERM write a checkpoint, then raise KeyboardInterrupt
    or SystemExit(143). Without it signals keep their handlers, and an interrupted run resumes from its last checkpoint.
    quiet_weights: say nothing about missing weights. later_epochs: of trials and folds that follow, for the remaining time.
    extend: a finished run whose plan has fewer epochs is trained on (`extension.extended_plan`). deterministic: see
    `deterministic_algorithms`. break_lock: see `run_lock`.
    Raises AutosegError for problems that the user can fix.
    """
    check_names(plan, str(dataset.plan))
    plan, weights = _with_weights(dataset, plan, model, pretrained, quiet=quiet_weights, extend=extend)
    model_plan, split = _select(plan, splits, model, fold)
    spec = read_description(dataset.description)
    config = _run_config(
        dataset, plan, model_plan=model_plan, split=split, spec=spec, device=team.device(resolve(device)), weights=weights,
        fold=fold, deterministic=deterministic,
    )  # fmt: skip
    config = replace(
        config, team=team, folder=trial or config.folder, later_epochs=later_epochs, activation=_activation(config)
    )
    folder = config.folder
    if not (restart or extend or replaced_run.is_pending(folder)) and is_finished(folder):
        # Without the lock, which a read-only disk cannot hold.
        _, record = _continued(checkpoint.load_last(folder), config, extend)
        if record is not None:
            return record
    # Training must not change the caller's random numbers.
    with (
        run_lock(folder, break_lock) if team.is_main else nullcontext() as lock,
        torch.random.fork_rng([config.device] if config.device.type == "cuda" else []),
    ):
        if team.is_main:
            replaced_run.recover(folder)
            remove_leftovers(folder, replaced_run.FILES)
        team.barrier()
        state = None if restart else checkpoint.load_last(folder)
        config, record = _continued(state, config, extend)
        if record is not None:
            return record
        team.barrier()
        if lock is not None:
            config = replace(config, check_lock=lock.check)
        if state is None:
            require_weights(dataset, plan, [model], pretrained)
            warn_other_normalisation(model_plan, weights)
        config = with_memory_format(config, registry.spec(model), None if state is None else _checkpoint_format(state))
        saw = choices_made(plan, search, splits, fold)
        record = replace(_record(config, fold, weights), search=search, saw_scored_cases=saw)
        record = replace(record, weights=record_weights(dataset, weights))
        record = extension.with_start_of(folder, record)
        trainer, record, run_loggers = _prepare(config, record, weights, state, log_to if team.is_main else ())
        # From here on files are changed. Whatever a user can do wrong has been found by now.
        with replaced_run.replaced(folder) if restart and team.is_main else nullcontext():
            if team.is_main:
                _write_inputs(folder, config.plan, spec, splits)
            finished = _train(config, record, trainer, run_loggers, handle_signals)
        team.barrier()
        return finished


def _with_weights(
    dataset: Dataset, plan: Plan, model: str, pretrained: str | None, *, quiet: bool, extend: bool
) -> tuple[Plan, WeightsSource | None]:
    """The weights a run starts from, and the plan for a training from them. An extended run began long ago."""
    if model not in plan.models:
        registry.spec(model)
        raise AutosegError(
            f"the plan of {plan.dataset} does not include {model}, only {', '.join(plan.models)}",
            f"autoseg_plan_and_preprocess {plan.dataset} --models {','.join([*plan.models, model])}",
        )
    weights = starting_weights(dataset, plan, model, pretrained, quiet)
    return plan if weights is not None or extend else without_transfer(plan, model), weights


def _select(plan: Plan, splits: Splits, model: str, fold: int) -> tuple[ModelPlan, Fold]:
    if not 0 <= fold < len(splits.folds):
        raise AutosegError(f"there is no fold {fold}", f"{plan.dataset} is split into folds 0 to {len(splits.folds) - 1}")
    return plan.models[model], training_split(splits, fold, plan.training.selection, plan.dataset)


def starting_weights(
    dataset: Dataset, plan: Plan, model: str, pretrained: str | None, quiet: bool = False
) -> WeightsSource | None:
    """The pretrained weights of a run, None for random ones. quiet: no warning about missing files."""
    model_plan, folder, commercial = plan.models[model], Workspace(dataset.root).weights, plan.licence == "commercial"
    choice = pretrained or model_plan.pretrained
    return find_weights(choice, registry.spec(model), model_plan.variant, folder, commercial, quiet)


def _run_config(
    dataset: Dataset,
    plan: Plan,
    model_plan: ModelPlan,
    split: Fold,
    spec: DatasetSpec,
    device: torch.device,
    weights: WeightsSource | None,
    fold: int,
    deterministic: bool,
) -> RunConfig:
    preprocessing = plan.preprocessing[model_plan.preprocessing]
    identity = preprocessing_hash(preprocessing, plan.content_hash)
    store = ArrayDataset.open(dataset.array_folder(preprocessing.key), identity)
    missing = sorted({*split.train, *split.validation} - set(store.cases))
    if missing or not split.train:
        raise SeveralProblems(
            f"fold {fold} in {dataset.splits} does not match the preprocessed data:",
            [f"there is no case {case!r}" for case in missing] or ["it has no training cases"],
            "correct the file, or delete it and run autoseg_plan_and_preprocess",
        )
    scheme = spec.label_scheme()
    parts = config_hash(plan, model_plan, scheme, split, weights.hash() if weights else "", deterministic)
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
        deterministic=deterministic,
    )


def _record(config: RunConfig, fold: int, weights: WeightsSource | None) -> RunRecord:
    return RunRecord(
        dataset=config.plan.dataset,
        model=config.model_plan.model,
        variant=config.model_plan.variant,
        fold=fold,
        protocol=config.plan.protocol,
        identity=digest(config.identity),
        seed=config.plan.training.seed,
        device=str(config.device),
        precision=precision.name(precision.trainable(config.model_plan.precision, config.device)),
        status="running",
        epochs_planned=config.plan.training.epochs,
        pretrained=weights.description if weights else "",
        memory_format=config.model_plan.memory_format,
        learning_rate=config.model_plan.learning_rate,
        batch_size=config.model_plan.batch_size,
        processes=config.team.size,
        planned_memory=config.model_plan.memory,
        accumulate=config.model_plan.accumulate,
        activation=_activation(config),
        deterministic=config.deterministic,
        extended=extension.extended_after(config.identity),
        selection=config.plan.training.selection,
        monitor=config.plan.training.monitor,
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _prepare(
    config: RunConfig, record: RunRecord, weights: WeightsSource | None, state: State | None, log_to: Sequence[str]
) -> tuple[Trainer, RunRecord, RunLoggers]:
    """The trainer with its initial or resumed weights, the record with the network's size, and the loggers."""
    torch.manual_seed(config.plan.training.seed)
    memory.begin(config.device)
    preprocessing = config.plan.preprocessing[config.model_plan.preprocessing]
    network = build_network(config.model_plan, preprocessing, config.scheme, config.folder / checkpoint.PLAN)
    record = replace(record, parameters=sum(parameter.numel() for parameter in network.parameters()))
    if state is None:
        _init_weights(network, config, weights)
    if config.model_plan.encoder_rate == 0:
        network.freeze_encoder()
    run_loggers = RunLoggers(log_to, config.folder, record, 0 if state is None else int(state["progress"]["epoch"]))
    trainer = Trainer(config, network, run_loggers.add)
    if state is not None:
        trainer.resume(state)
    return trainer, record, run_loggers


def _train(config: RunConfig, record: RunRecord, trainer: Trainer, run_loggers: RunLoggers, handle_signals: bool) -> RunRecord:
    writer = _RecordWriter(config, record, trainer.steps_per_epoch)
    if config.team.is_main:
        _log_start(config, record, trainer.progress)
    if record.extended[-1:] == (trainer.progress.epoch,):
        # run.json and the checkpoints must be of the same run.
        trainer.save()
    writer.write("running", trainer.progress)
    try:
        with (
            graceful_shutdown(handle_signals) as stop,
            precision.tensor_cores(config.device),
            deterministic_algorithms(config.deterministic),
        ):
            progress = trainer.run(stop, writer.on_checkpoint)
    except BaseException:
        writer.write_stopped()
        raise
    finally:
        run_loggers.close()
    if config.team.is_main:
        (config.folder / checkpoint.PREVIOUS).unlink(missing_ok=True)
        if config.team.size == 1 and (warning := memory.off_plan(progress.peak_step_memory, config.model_plan.memory)):
            logger.warning(f"{config.title}: {warning}")
    finished = writer.write("finished", progress)
    if stop.requested:
        stop.exit()
    return finished


def _init_weights(network: SegmentationNetwork, config: RunConfig, weights: WeightsSource | None) -> None:
    """Initialise head biases, then load pretrained weights."""
    frequencies = class_frequencies(config.store, config.split.train, config.scheme)
    channels = config.plan.preprocessing[config.model_plan.preprocessing].channels
    init_head_bias(network, channels, frequencies, _activation(config) == "sigmoid")
    if weights is not None:
        load_weights(network, weights)


def _activation(config: RunConfig) -> Activation:
    loss = Loss(config.plan.training.loss, config.scheme)
    own_loss = registry.spec(config.model_plan.model).own_loss
    return output_activation("", config.scheme) if own_loss else loss.activation


class _RecordWriter:
    """Writes run.json, in agreement with the checkpoints."""

    def __init__(self, config: RunConfig, record: RunRecord, steps_per_epoch: int) -> None:
        self._folder = config.folder
        self._is_main = config.team.is_main
        self._record = record
        self._steps_per_epoch = steps_per_epoch
        self.progress = Progress()

    def on_checkpoint(self, progress: Progress) -> None:
        self.write("running", progress)
        if self._is_main:
            replaced_run.discard(self._folder)

    def write_stopped(self) -> None:
        """After an error: what also fails now must not hide it, and a folder that has gone is not made again."""
        if self._folder.is_dir():
            try:
                self.write("stopped", self.progress)
            except AutosegError as error:
                logger.warning(error.problem)

    def write(self, status: Literal["running", "finished", "stopped"], progress: Progress) -> RunRecord:
        self.progress = replace(progress)
        steps = progress.epoch * self._steps_per_epoch + progress.step
        seconds = progress.seconds - progress.validating
        record = replace(
            self._record,
            status=status,
            epochs_done=progress.epoch,
            best_epoch=progress.best_epoch,
            class_mean_dice=progress.averages.get("class_mean.dice", 0.0),
            micro_dice=progress.averages.get("micro.dice", math.nan),
            micro_iou=progress.averages.get("micro.iou", math.nan),
            dice=dict(progress.dice),
            seconds=progress.seconds,
            processor_seconds=progress.processor_seconds,
            energy=dict(progress.energy),
            steps=steps - progress.skipped,
            epoch_seconds=(seconds - progress.epoch_seconds) / max(1, progress.epoch),
            images_per_second=steps * self._record.batch_size / seconds if seconds > 0 else 0.0,
            peak_memory=progress.peak_memory,
            peak_device_memory=progress.peak_device_memory,
            peak_step_memory=progress.peak_step_memory,
            accumulate=progress.accumulate or self._record.accumulate,
        )
        if self._is_main:
            write_artefact(self._folder / checkpoint.RECORD, record)
        return record


def _log_start(config: RunConfig, record: RunRecord, progress: Progress) -> None:
    format_name = "" if record.memory_format == "contiguous" else f", {record.memory_format}"
    format_name += ", deterministic" if record.deterministic else ""
    where = f"{record.device} ({record.precision}{format_name})"
    where += f", {config.team.size} processes" if config.team.size > 1 else ""
    kind = "validation" if config.plan.training.selection in ("inner", "next_fold") else "held-out"
    images = f"{len(config.split.train)} training and {len(config.split.validation)} {kind} cases"
    size = f"{record.parameters / 1e6:.1f} M parameters"
    logger.info(f"{config.title}: {size}, {images}, {record.epochs_planned} epochs on {where}")
    if progress.epoch or progress.step:
        logger.info(f"resuming after epoch {progress.epoch}" + (f", step {progress.step}" if progress.step else ""))


def _checkpoint_format(state: State) -> MemoryFormat:
    # Old checkpoints have no memory format.
    return "channels_last" if state.get("memory_format") == "channels_last" else "contiguous"


def _check_same_config(state: State, config: RunConfig) -> None:
    changed = differences(state["identity"], config.identity)
    if config.identity.get(extension.PART) != state["identity"].get(extension.PART):
        changed = [line for line in changed if not line.startswith(extension.DIFFERENCES)]
    format_now, format_before = config.model_plan.memory_format, _checkpoint_format(state)
    if format_now not in ("auto", format_before):
        changed.append(f"model.memory_format: {format_before} -> {format_now}")
    if changed:
        raise SeveralProblems(
            f"{config.folder} holds a run with other settings, which cannot be resumed. Run -> now:",
            changed,
            f"undo the change, or train again with --restart (replaces that run){extension.hint(state, config.identity)}",
        )


def is_finished(folder: Path) -> bool:
    """Whether a fold's folder holds a finished run."""
    path = folder / checkpoint.RECORD
    if not (folder / checkpoint.LAST).exists() or not path.exists():
        return False
    return read_artefact(path, RunRecord, "delete it: the checkpoint is enough to resume").status == "finished"


def _continued(state: State | None, config: RunConfig, extend: bool) -> tuple[RunConfig, RunRecord | None]:
    """The configuration of a run that goes on from a checkpoint (None: starts), and its record if it is finished.

    Raises SeveralProblems if the run in the folder has other settings.
    """
    if state is None:
        return config, None
    config = replace(config, identity=extension.continued(state, config.identity, extend))
    _check_same_config(state, config)
    record = _finished_record(config)
    if record is not None:
        logger.info(f"{config.title} is already finished: {record.dice_text} (--restart trains again)")
    return config, record


def _finished_record(config: RunConfig) -> RunRecord | None:
    path = config.folder / checkpoint.RECORD
    if not path.exists():
        return None
    remedy = "delete it: the checkpoint is enough to resume"
    record = read_artefact(path, RunRecord, remedy)
    if record.extended != extension.extended_after(config.identity):
        return None
    if record.identity != digest(config.identity):
        raise AutosegError(f"{path} is of another run than the checkpoints next to it", remedy)
    return record if record.status == "finished" else None


def _write_inputs(folder: Path, plan: Plan, spec: DatasetSpec, splits: Splits) -> None:
    write_artefact(folder / checkpoint.PLAN, plan)
    write_artefact(folder / checkpoint.DATASET, spec)
    write_artefact(folder / checkpoint.SPLITS, splits)
