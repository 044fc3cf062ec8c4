"""Training loop: train, validate, log, save checkpoints. All random numbers are keyed by epoch and step, so a resumed run takes
exactly the same steps as an unbroken one.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoseg.data.loader import Batch, TrainLoader, use_processes
from autoseg.inference.activation import Activation
from autoseg.inference.engine import Engine
from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import CHOOSING, Fold, ModelPlan, Plan
from autoseg.support.errors import AutosegError
from autoseg.support.interrupts import held_signals
from autoseg.support.log import progress_bar
from autoseg.support.parallel import available_cores
from autoseg.training import checkpoint, memory, plot
from autoseg.training.cached_features import CachedLoader, cached_loader
from autoseg.training.checkpoint import Progress, State
from autoseg.training.csv_logger import AVERAGES, MetricsLog, Row
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.energy import EnergyMeter
from autoseg.training.graceful_shutdown import StopRequest
from autoseg.training.losses import Loss
from autoseg.training.optim import learning_rate_at, learning_rate_of, make_optimizer
from autoseg.training.step import Step, local_indices, step_seed
from autoseg.training.validate import validate
from autoseg.training.weight_average import weight_average

logger = logging.getLogger(__name__)

# The run ends with an error after this many skipped steps in a row.
MAX_SKIPPED_STEPS = 20
# Checkpoints and plots may take at most these fractions of the time, so not every short epoch has them.
_SAVE_FRACTION, _PLOT_FRACTION = 0.05, 0.02
# Expected seconds of the first plot.
_PLOT_SECONDS = 0.6
# The fraction of an epoch's time spent waiting for data from which on it is told.
_MUCH_WAITING = 0.1
# Seconds after which a checkpoint is written within an epoch.
_MAX_UNSAVED_SECONDS = 600.0


class Diverged(AutosegError):
    """The loss stayed NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Inputs of a run. identity: see `config_hash.config_hash`. title: for messages. team: the processes that train together.
    activation: see `Engine`. deterministic: see `deterministic_algorithms`.

    check_lock: raises if another run has taken over the folder. later_epochs: of runs that follow, for the remaining time.
    """

    folder: Path
    title: str
    plan: Plan
    model_plan: ModelPlan
    scheme: LabelScheme
    store: ArrayDataset
    split: Fold
    device: torch.device
    identity: dict[str, str]
    activation: Activation | None = None
    team: DistributedContext = SINGLE_PROCESS
    check_lock: Callable[[], None] = lambda: None
    later_epochs: int = 0
    deterministic: bool = False


class Trainer:
    """One run. With several processes each has a trainer, and the main one writes.

    on_epoch_end: called with each epoch's row of metrics.csv.
    """

    def __init__(
        self,
        config: RunConfig,
        network: SegmentationNetwork,
        on_epoch_end: Callable[[Row], None] = lambda row: None,
    ) -> None:
        self.progress = Progress()
        self._config = config
        self._team = config.team
        self._on_checkpoint: Callable[[Progress], None] = lambda progress: None
        self._on_epoch_end = on_epoch_end
        training, model_plan, device = config.plan.training, config.model_plan, config.device
        self._training = training
        self._chooses_epoch = training.selection in CHOOSING
        self._network = network = config.team.sync_batch_norm(network.to(device), device)
        self._optimizer = make_optimizer(network, training, model_plan.learning_rate, model_plan)
        loss = Loss(training.loss, config.scheme, training.cldice, config.team, auxiliary=training.auxiliary_losses)
        self._step = Step(
            network,
            self._optimizer,
            loss=loss,
            model_plan=model_plan,
            clip=training.gradient_clip,
            device=device,
            team=config.team,
            compiled=training.compile,
            every_weight=training.auxiliary_losses,
        )
        self._batches = _batches(config, network)
        preprocessing = config.plan.preprocessing[model_plan.preprocessing]
        self._average = weight_average(network) if training.selection == "average" else None
        # The network whose weights the run gives.
        self._evaluated = network if self._average is None else self._average.module
        self._engine = Engine(self._evaluated, model_plan, preprocessing, config.scheme, device, activation=config.activation)
        self._log = MetricsLog(config.folder, tuple(config.scheme.foreground))
        # Weights of the best epoch, until they are saved in best.pt.
        self._best: dict[str, Tensor] | None = None
        self._processor_start = _processor_seconds()
        self._energy = EnergyMeter(device)
        # One of several processes does not see all devices.
        self.progress.energy = dict.fromkeys(self._energy.parts, 0.0) if self._team.size == 1 else {}
        # Until when the time of the epoch is counted.
        self._counted = time.perf_counter()
        self._save_throttle, self._plot_throttle = _Throttle(_SAVE_FRACTION), _Throttle(_PLOT_FRACTION, _PLOT_SECONDS)

    @property
    def steps_per_epoch(self) -> int:
        return self._batches.steps_per_epoch

    def resume(self, state: State) -> None:
        """Restore the state of a checkpoint. One of another identity is that of a finished run, which is now extended."""
        self._network.load_state_dict(state["state_dict"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            # Empty if the run started on a device that needs none.
            self._step.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        if self._team.size > 1:
            self.progress.energy = {}
        if self.progress.accumulate and self._team.size == 1:
            self._step.accumulate = self.progress.accumulate
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        extends = state["identity"] != self._config.identity
        if extends:
            self.progress.validations_since_best = 0
        if self.progress.best_epoch > 0:
            try:
                best = checkpoint.read_best(self._config.folder, state["identity"], self._config.identity)
            except AutosegError as error:
                logger.warning(f"{error.problem}; the best epoch is chosen from now on only")
                self.progress.best_value, self.progress.best_epoch = -1.0, -1
                self.progress.patience_value, self.progress.validations_since_best = -1.0, 0
            else:
                # Saved again, under the identity of the extended run.
                self._best = best["state_dict"] if extends else None

    def run(self, stop: StopRequest, on_checkpoint: Callable[[Progress], None] = lambda progress: None) -> Progress:
        """Train the remaining epochs. on_checkpoint: called after each checkpoint with its progress.

        Raises Diverged if the loss stays NaN or infinite; exits by `stop` if requested.
        """
        progress, self._on_checkpoint = self.progress, on_checkpoint
        self._processor_start = _processor_seconds() - progress.processor_seconds
        if self._team.is_main:
            self._log.begin(progress.epoch)
        while progress.epoch < self._training.epochs and not self._patience_is_over():
            self._train_epoch(stop)
            self._end_epoch(stop)
            last = progress.epoch == self._training.epochs or self._patience_is_over()
            if last or self._save_throttle.due():
                self.save()
            if last or self._plot_throttle.due():
                self._plot()
            if not last:
                self._exit_if_requested(stop)
        if progress.best_epoch < 1:
            # The run was killed after its last epoch, and best.pt was lost.
            self._validate(progress.epoch, {}, stop)
            self.save()
        return progress

    def save(self) -> None:
        """Write best.pt if it changed, then last.pt. A run that is killed between them writes the same best.pt again.

        Ctrl-C and SIGTERM wait until both and run.json are written.
        """
        if not self._team.is_main:
            return
        self._config.check_lock()
        with held_signals(), self._save_throttle:
            progress, folder, identity = self.progress, self._config.folder, self._config.identity
            progress.peak_memory = max(progress.peak_memory, memory.peak())
            self._record_device_peak()
            progress.accumulate = self._step.accumulate
            progress.processor_seconds = _processor_seconds() - self._processor_start
            progress.energy = self._energy.added_to(progress.energy)
            if self._best is not None:
                checkpoint.save_best(folder, identity, self._best, progress.best_epoch, progress.best_value)
                self._best = None
            states = {
                "state_dict": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._step.scaler.state_dict(),
            }
            if self._average is not None:
                states["average"] = self._average.state_dict()
            checkpoint.save_last(folder, identity, states, progress, self._config.model_plan.memory_format)
            self._on_checkpoint(progress)

    def _train_epoch(self, stop: StopRequest) -> None:
        progress, training, steps = self.progress, self._training, self._batches.steps_per_epoch
        total = training.epochs * steps
        warmup = self._config.model_plan.warmup_steps(steps, total)
        if isinstance(self._batches, CachedLoader):
            begun = time.perf_counter()
            self._batches.prepare(lambda: self._exit_if_requested(stop))
            progress.seconds += time.perf_counter() - begun
        self._network.train()
        batches = self._batches.epoch(progress.epoch, progress.step)
        title = f"epoch {progress.epoch + 1}/{training.epochs}"
        try:
            for batch in progress_bar(self._timed(batches), title, steps - progress.step):
                step = progress.epoch * steps + progress.step
                rate = learning_rate_at(step, total, self._config.model_plan.learning_rate, training.schedule, warmup)
                seed = step_seed(training.seed, progress.epoch, progress.step, self._team.rank)
                loss = self._step(batch, rate, seed)
                if self._average is not None and loss is not None:
                    self._average.update_parameters(self._network)
                self._record_loss(loss)
                progress.step += 1
                self._count_time()
                self._exit_if_requested(stop)
                if self._save_throttle.elapsed > _MAX_UNSAVED_SECONDS:
                    self.save()
        finally:
            # Closing the generator ends its threads.
            batches.close()  # type: ignore[attr-defined]
        peak = self._record_device_peak()
        progress.peak_step_memory = max(progress.peak_step_memory, peak)

    def _record_device_peak(self) -> int:
        """The peak since the last call: of an epoch's steps, or of its validation."""
        peak = memory.device_peak(self._config.device)
        self.progress.peak_device_memory = max(self.progress.peak_device_memory, peak)
        memory.reset_device_peak(self._config.device)
        return peak

    def _exit_if_requested(self, stop: StopRequest) -> None:
        if self._team.any(stop.requested is not None):
            self.save()
            stop.exit()

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; counts the time of the steps and the time spent waiting for data."""
        self._counted = time.perf_counter()
        for batch in batches:
            self._count_time(waiting=True)
            yield batch
            self._count_time()

    def _count_time(self, waiting: bool = False) -> None:
        """Add the time since the last call to that of the epoch, so that a checkpoint holds all of it."""
        progress, now = self.progress, time.perf_counter()
        seconds, self._counted = now - self._counted, now
        progress.epoch_seconds, progress.seconds = progress.epoch_seconds + seconds, progress.seconds + seconds
        progress.data_seconds += seconds if waiting else 0.0

    def _record_loss(self, loss: float | None) -> None:
        progress = self.progress
        if loss is not None:
            progress.consecutive_skipped, progress.losses, progress.loss_sum = 0, progress.losses + 1, progress.loss_sum + loss
            return
        progress.skipped += 1
        progress.consecutive_skipped += 1
        if progress.consecutive_skipped >= MAX_SKIPPED_STEPS:
            model = self._config.model_plan.model
            raise Diverged(
                f"{self._config.title}: the loss or gradient was NaN or infinite in {MAX_SKIPPED_STEPS} steps in a row "
                f"(epoch {progress.epoch + 1}); the last good checkpoint is in {self._config.folder}",
                f"lower the learning rate (--set models.{model}.learning_rate=...), or use full precision "
                f"(--set models.{model}.precision=fp32), with --restart",
            )

    def _end_epoch(self, stop: StopRequest) -> None:
        """Validate, then start the next epoch. The run may be interrupted and resumed during validation."""
        progress, training = self.progress, self._training
        epoch = progress.epoch + 1
        row: Row = {
            "epoch": epoch,
            "learning_rate": learning_rate_of(self._optimizer),
            "seconds": progress.epoch_seconds,
            # Checkpoints of older releases may hold less time of an epoch than was waited in it.
            "data_wait": min(1.0, progress.data_seconds / max(progress.epoch_seconds, 1e-9)),
            "skipped": progress.skipped,
        }
        if progress.losses:
            row["loss"] = progress.loss_sum / progress.losses
        improved = False
        if epoch % training.validate_every == 0 or epoch == training.epochs:
            improved = self._validate(epoch, row, stop)
        self._record_device_peak()
        progress.epoch, progress.step = epoch, 0
        progress.losses, progress.loss_sum, progress.epoch_seconds, progress.data_seconds = 0, 0.0, 0.0, 0.0
        if self._team.is_main:
            self._log.append(row)
            self._on_epoch_end(row)
            self._log_epoch(row, improved)

    def _validate(self, epoch: int, row: Row, stop: StopRequest) -> bool:
        """Add validation scores to the row. Returns whether the weights are kept: what is monitored is the best so far, or
        the last weights count."""
        progress, config = self.progress, self._config
        start = time.perf_counter()
        cases = config.split.validation
        scores = validate(self._engine, config.store, cases, config.scheme, lambda: self._exit_if_requested(stop), self._team)
        row["validation_seconds"] = time.perf_counter() - start
        row.update({column: scores.value(monitor) for monitor, column in AVERAGES.items()})
        row.update({f"dice_{name}": value for name, value in scores.dice.items() if not math.isnan(value)})
        progress.seconds += row["validation_seconds"]
        progress.validating += row["validation_seconds"]
        # Without a choice of the epoch, or without cases for it, the latest weights are kept.
        chooses = bool(cases) and self._chooses_epoch
        value = scores.value(self._training.monitor)
        self._count_patience(value, chooses)
        if chooses and value <= progress.best_value:
            return False
        progress.best_value, progress.best_epoch = value, epoch
        progress.averages = {monitor: scores.value(monitor) for monitor in AVERAGES}
        progress.dice = scores.dice
        if self._team.is_main:
            # Saved in the usual memory format, whatever the one in training.
            self._best = {
                name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, tensor in self._evaluated.state_dict().items()
            }
        return True

    def _count_patience(self, value: float, chooses: bool) -> None:
        """A gain that is too small does not move the value it is counted from, so that small gains add up."""
        progress = self.progress
        if not chooses or value > progress.patience_value + self._training.min_delta:
            progress.patience_value, progress.validations_since_best = value, 0
        else:
            progress.validations_since_best += 1

    def _patience_is_over(self) -> bool:
        return 0 < self._training.patience <= self.progress.validations_since_best

    def _plot(self) -> None:
        if not self._team.is_main:
            return
        with self._plot_throttle:
            plot.draw(self._config.folder, self._log.rows, tuple(self._config.scheme.foreground), self._config.title)

    def _log_epoch(self, row: Row, improved: bool) -> None:
        progress, epochs = self.progress, self._training.epochs
        width = len(str(epochs))
        line = f"epoch {progress.epoch:{width}d}/{epochs}"
        line += f"  loss {row['loss']:.4f}" if "loss" in row else "  all steps skipped"
        if "micro_dice" in row:
            line += self._dice_text(row) + (" *" if improved and self._chooses_epoch else "  ")
        seconds = row["seconds"] + row.get("validation_seconds", 0.0)
        line += f"  lr {row['learning_rate']:.2g}  {seconds:.1f} s"
        line += f", {row['data_wait']:.0%} waiting for data" if row["data_wait"] >= _MUCH_WAITING else ""
        epochs_left = epochs - progress.epoch + self._config.later_epochs
        seconds_left = progress.seconds / progress.epoch * epochs_left
        in_all = " in all" if self._config.later_epochs else ""
        line += f"  ({progress.skipped} steps skipped so far: loss or gradient NaN or infinite)" if progress.skipped else ""
        logger.info(line + (f"  about {_duration(seconds_left)} left{in_all}" if epochs_left else ""))


    def _dice_text(self, row: Row) -> str:
        names = list(self._config.scheme.foreground)
        if len(names) < 2:
            return f"  Dice {row['micro_dice']:.3f}"
        classes = [f"{name} {row[f'dice_{name}']:.3f}" for name in names if f"dice_{name}" in row]
        of_classes = f" ({', '.join(classes)})" if len(classes) > 1 else ""
        return f"  mDSC {row['micro_dice']:.3f}  class mean {row['class_mean_dice']:.3f}{of_classes}"


def _batches(config: RunConfig, network: SegmentationNetwork) -> TrainLoader | CachedLoader:
    training, model_plan, device = config.plan.training, config.model_plan, config.device
    if model_plan.cached_views:
        if config.team.size > 1:
            field = f"models.{model_plan.model}.cached_views"
            raise AutosegError("cached features are for trainings in one process", f"leave out torchrun, or --set {field}=0")
        return cached_loader(config.store, network, config.split.train, model_plan, training, config.scheme, device=device)
    samples = [sample for indices in local_indices(model_plan, config.team) for sample in indices]
    return TrainLoader(
        config.store, config.split.train, model_plan, training, config.scheme, training.seed,
        pin=device.type == "cuda", samples=samples,
        processes=use_processes(device.type, available_cores() // config.team.size),
    )  # fmt: skip


class _Throttle:
    """Limits an action to a fraction of the time: due when enough time has passed since the last time.

    seconds: expected duration of the first time.
    """

    def __init__(self, fraction: float, seconds: float = 0.0) -> None:
        self._fraction = fraction
        self._seconds = seconds
        self._ended = self._start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the last time."""
        return time.perf_counter() - self._ended

    def due(self) -> bool:
        return self.elapsed * self._fraction >= self._seconds

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._ended = time.perf_counter()
        self._seconds = self._ended - self._start


def _processor_seconds() -> float:
    """Processor seconds of this process and of its ended children (workers that load data)."""
    return sum(os.times()[:4])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
