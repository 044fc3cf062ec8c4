"""The loop over epochs: train, validate, log, keep the best, save. Everything random is keyed by where the run stands, so a
run that goes on from a checkpoint takes exactly the steps an unbroken one would have taken.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoseg.data.loader import Batch, TrainLoader
from autoseg.inference.engine import Engine
from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Fold, ModelPlan, Plan
from autoseg.support.errors import AutosegError
from autoseg.support.log import progress_bar
from autoseg.training import checkpoint, memory, plot
from autoseg.training.checkpoint import Progress, State
from autoseg.training.csv_logger import MetricsLog, Row
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.graceful_shutdown import StopRequest
from autoseg.training.losses import Loss
from autoseg.training.optim import learning_rate_at, make_optimizer
from autoseg.training.step import Step, shares, step_seed
from autoseg.training.validate import mean_dice, validate

logger = logging.getLogger(__name__)

# Steps in a row without a usable loss after which a run is given up.
MAX_SKIPPED_STEPS = 20
# Checkpoints and pictures may take this share of the time; with short epochs they are then not made after each.
_SAVING_SHARE, _DRAWING_SHARE = 0.05, 0.02
# Seconds a picture may be expected to take before one was drawn.
_DRAWING = 0.6
# Within an epoch a checkpoint is written after so many seconds without one.
_LONGEST_UNSAVED = 600.0


class Diverged(AutosegError):
    """The loss stayed no number."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What is to be trained. identity: see `identity.identity`. title: for people. team: the processes that do it.

    check_lock: raises where the folder is no longer ours to write to.
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
    team: DistributedContext = SINGLE_PROCESS
    check_lock: Callable[[], None] = lambda: None


class Trainer:
    """One run; in a team each process has one, and the first one writes.

    on_checkpoint: called after each checkpoint, with the progress it holds.
    on_epoch_end: called with each epoch's row of metrics.csv.
    """

    def __init__(
        self,
        task: RunConfig,
        network: SegmentationNetwork,
        on_checkpoint: Callable[[Progress], None],
        on_epoch_end: Callable[[Row], None] = lambda row: None,
    ) -> None:
        self.progress = Progress()
        self._task = task
        self._team = task.team
        self._on_checkpoint = on_checkpoint
        self._on_epoch_end = on_epoch_end
        training, model_plan, device = task.plan.training, task.model_plan, task.device
        self._training = training
        self._network = network = task.team.sync_batch_norm(network.to(device), device)
        self._optimizer = make_optimizer(network, training, model_plan.learning_rate)
        loss = Loss(training.loss, task.scheme, training.cldice, task.team)
        self._step = Step(
            network,
            self._optimizer,
            loss=loss,
            model_plan=model_plan,
            clip=training.gradient_clip,
            device=device,
            team=task.team,
        )
        mine = [sample for share in shares(model_plan, task.team) for sample in share]
        self._batches = TrainLoader(
            task.store, task.split.train, model_plan, training, task.scheme, training.seed,
            pin=device.type == "cuda", samples=mine,
        )  # fmt: skip
        self._engine = Engine(network, model_plan, task.plan.preprocessing[model_plan.preprocessing], task.scheme, device)
        self._log = MetricsLog(task.folder, tuple(task.scheme.foreground))
        # Weights of the best epoch that best.pt does not hold yet.
        self._best: dict[str, Tensor] | None = None
        self._saving, self._drawing = _Throttle(_SAVING_SHARE), _Throttle(_DRAWING_SHARE, _DRAWING)

    @property
    def steps_per_epoch(self) -> int:
        return self._batches.steps_per_epoch

    def resume(self, state: State) -> None:
        """Go on from what a checkpoint holds."""
        self._network.load_state_dict(state["state_dict"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            # Empty where the run began on a device that needs none.
            self._step.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        if self.progress.best_epoch > 0:
            try:
                checkpoint.read(self._task.folder / checkpoint.BEST)
            except AutosegError as error:
                logger.warning(f"{error.problem}; the best epoch will be the best one from here on")
                self.progress.best_dice, self.progress.best_epoch, self.progress.epochs_since_best = -1.0, -1, 0

    def run(self, stop: StopRequest) -> Progress:
        """All epochs that are left. Raises Diverged where the loss stays no number; leaves by `stop` when asked to."""
        progress = self.progress
        if self._team.is_main:
            self._log.begin(progress.epoch)
        while progress.epoch < self._training.epochs and not self._exhausted():
            self._train_epoch(stop)
            self._end_epoch(stop)
            last = progress.epoch == self._training.epochs or self._exhausted()
            if last or self._saving.due():
                self.save()
            if last or self._drawing.due():
                self._draw()
            if not last:
                self._leave_if_asked(stop)
        return progress

    def save(self) -> None:
        """best.pt where it changed, then last.pt: so a run that dies between them makes best.pt again, the same."""
        if not self._team.is_main:
            return
        self._task.check_lock()
        with self._saving:
            progress, folder, identity = self.progress, self._task.folder, self._task.identity
            progress.peak_memory = max(progress.peak_memory, memory.peak())
            progress.peak_device_memory = max(progress.peak_device_memory, memory.device_peak(self._task.device))
            if self._best is not None:
                checkpoint.save_best(folder, identity, self._best, progress.best_epoch, progress.best_dice)
                self._best = None
            states = {
                "state_dict": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._step.scaler.state_dict(),
            }
            checkpoint.save_last(folder, identity, states, progress, self._task.model_plan.memory_format)
            self._on_checkpoint(progress)

    def _train_epoch(self, stop: StopRequest) -> None:
        progress, training, steps = self.progress, self._training, self._batches.steps_per_epoch
        total, warmup = training.epochs * steps, self._task.model_plan.warmup_epochs * steps
        self._network.train()
        batches = self._batches.epoch(progress.epoch, progress.step)
        what = f"epoch {progress.epoch + 1}/{training.epochs}"
        try:
            for batch in progress_bar(self._timed(batches), what, steps - progress.step):
                done = progress.epoch * steps + progress.step
                rate = learning_rate_at(done, total, self._task.model_plan.learning_rate, training.schedule, warmup)
                seed = step_seed(training.seed, progress.epoch, progress.step, self._team.rank)
                self._count(self._step(batch, rate, seed))
                progress.step += 1
                self._leave_if_asked(stop)
                if self._saving.elapsed > _LONGEST_UNSAVED:
                    self.save()
        finally:
            # A generator that is not run to its end keeps its threads until it is closed.
            batches.close()  # type: ignore[attr-defined]

    def _leave_if_asked(self, stop: StopRequest) -> None:
        if self._team.any(stop.requested is not None):
            self.save()
            stop.obey()

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, keeping account of the time that goes by and of that spent waiting for them."""
        progress = self.progress
        begun = time.perf_counter()
        for batch in batches:
            progress.data_seconds += time.perf_counter() - begun
            yield batch
            now = time.perf_counter()
            progress.epoch_seconds, progress.seconds = progress.epoch_seconds + now - begun, progress.seconds + now - begun
            begun = now

    def _count(self, loss: float | None) -> None:
        progress = self.progress
        if loss is not None:
            progress.consecutive_skipped, progress.losses, progress.loss_sum = 0, progress.losses + 1, progress.loss_sum + loss
            return
        progress.skipped += 1
        progress.consecutive_skipped += 1
        if progress.consecutive_skipped >= MAX_SKIPPED_STEPS:
            model = self._task.model_plan.model
            raise Diverged(
                f"{self._task.title}: loss or gradient was not a number in {MAX_SKIPPED_STEPS} steps in a row "
                f"(epoch {progress.epoch + 1}); the last good state is kept in {self._task.folder}",
                f"lower the learning rate (--set models.{model}.learning_rate=...), or compute at full precision "
                f"(--set models.{model}.precision=fp32), with --restart",
            )

    def _end_epoch(self, stop: StopRequest) -> None:
        """Validate, and enter the next epoch. Until then the run stands at the end of this one, and may be left there."""
        progress, training = self.progress, self._training
        epoch = progress.epoch + 1
        row: Row = {
            "epoch": epoch,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "seconds": progress.epoch_seconds,
            "data_wait": progress.data_seconds / max(progress.epoch_seconds, 1e-9),
            "skipped": progress.skipped,
        }
        if progress.losses:
            row["loss"] = progress.loss_sum / progress.losses
        better = False
        if epoch % training.validate_every == 0 or epoch == training.epochs:
            better = self._validate(epoch, row, stop)
        progress.epoch, progress.step = epoch, 0
        progress.epochs_since_best = 0 if better else progress.epochs_since_best + 1
        progress.losses, progress.loss_sum, progress.epoch_seconds, progress.data_seconds = 0, 0.0, 0.0, 0.0
        if self._team.is_main:
            self._log.append(row)
            self._on_epoch_end(row)
            self._say(row, better)

    def _validate(self, epoch: int, row: Row, stop: StopRequest) -> bool:
        """Fill in the row's Dice; whether it is the best so far, whose weights are then kept."""
        progress, task = self.progress, self._task
        begun = time.perf_counter()
        held_out = task.split.validation
        dice = validate(self._engine, task.store, held_out, task.scheme, lambda: self._leave_if_asked(stop), self._team)
        mean = mean_dice(dice)
        row["validation_seconds"] = time.perf_counter() - begun
        row["dice"] = mean
        row.update({f"dice_{name}": value for name, value in dice.items() if not math.isnan(value)})
        progress.seconds += row["validation_seconds"]
        progress.validating += row["validation_seconds"]
        # Without held-out cases there is nothing to compare, and the latest weights are the ones to keep.
        if held_out and mean <= progress.best_dice:
            return False
        progress.best_dice, progress.best_epoch, progress.dice = mean, epoch, dice
        if self._team.is_main:
            # As everybody expects tensors to lie, however they lie here.
            self._best = {
                name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, tensor in self._network.state_dict().items()
            }
        return True

    def _exhausted(self) -> bool:
        return 0 < self._training.patience <= self.progress.epochs_since_best

    def _draw(self) -> None:
        if not self._team.is_main:
            return
        with self._drawing:
            plot.draw(self._task.folder, self._log.rows, tuple(self._task.scheme.foreground), self._task.title)

    def _say(self, row: Row, better: bool) -> None:
        progress, epochs = self.progress, self._training.epochs
        width = len(str(epochs))
        line = f"epoch {progress.epoch:{width}d}/{epochs}"
        line += f"  loss {row['loss']:.4f}" if "loss" in row else "  no usable step"
        if "dice" in row:
            classes = [f"{name} {row[f'dice_{name}']:.3f}" for name in self._task.scheme.foreground if f"dice_{name}" in row]
            line += f"  Dice {row['dice']:.3f}{' *' if better else '  '}"
            line += f" ({', '.join(classes)})" if len(classes) > 1 else ""
        seconds = row["seconds"] + row.get("validation_seconds", 0.0)
        line += f"  lr {row['learning_rate']:.2g}  {seconds:.1f} s, {row['data_wait']:.0%} waiting for data"
        left = progress.seconds / progress.epoch * (epochs - progress.epoch)
        line += f"  ({progress.skipped} steps left out so far: not a number)" if progress.skipped else ""
        logger.info(line + (f"  about {_duration(left)} left" if progress.epoch < epochs else ""))


class _Throttle:
    """Something that may take a share of the time: due when that much has gone by since the last time.

    took: seconds it is thought to take, until it is known.
    """

    def __init__(self, share: float, took: float = 0.0) -> None:
        self._share = share
        self._took = took
        self._ended = self._begun = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the last time."""
        return time.perf_counter() - self._ended

    def due(self) -> bool:
        return self.elapsed * self._share >= self._took

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._ended = time.perf_counter()
        self._took = self._ended - self._begun


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
