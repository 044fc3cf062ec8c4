"""One optimiser step: gradient accumulation, shards of a batch, autocast, gradient clipping, skipping of NaN and infinity."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from autoseg.data.loader import Batch, EncodedBatch
from autoseg.data.sampling import generator
from autoseg.inference.out_of_memory import within_memory
from autoseg.inference.precision import trainable
from autoseg.models.base import ModelOutput, SegmentationNetwork
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.plan import ModelPlan
from autoseg.support.errors import AutosegError
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.losses import Loss
from autoseg.training.optim import set_learning_rate

logger = logging.getLogger(__name__)

# Stream of random numbers inside the network (dropout), separate from sampling and augmentation.
_NETWORK_STREAM = 2


class Step:
    """Optimiser steps of one run. scaler: loss scaling for fp16; disabled at other precisions.

    team: each process gets its shard of each micro-batch (see `local_indices`), and draws its own dropout. compiled: see
    `Training.compile`. every_weight: False if the loss leaves some weights without a gradient, as those of auxiliary heads.

    If a micro-batch does not fit into the memory, all are halved: this step is tried again, and later steps begin with what
    fits. With several processes that is an error: the others wait in the middle of their backward pass.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        model_plan: ModelPlan,
        clip: float,
        device: torch.device,
        team: DistributedContext = SINGLE_PROCESS,
        compiled: bool = False,
        every_weight: bool = True,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self._format = memory_format(model_plan)
        network.to(memory_format=self._format)
        self.scaler = make_scaler(model_plan.precision, device)
        self._loss = loss
        self._plan = model_plan
        self._device = device
        self._clip = clip if clip > 0 else math.inf
        self._team = team
        self._half = trainable(model_plan.precision, device)
        self._ddp = None if team.size == 1 else _wrap_ddp(network, every_weight)
        passes: nn.Module = network if self._ddp is None else self._ddp
        # Names of the state dict stay those of the network, which validation uses as it is.
        self._passes: Callable[..., ModelOutput] = torch.compile(passes) if compiled else passes
        self._weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Running statistics change in the forward pass, so a skipped step must restore them.
        self._buffers = list(network.buffers())
        self._saved_buffers = [torch.empty_like(buffer) for buffer in self._buffers]

    def __call__(self, batch: Batch, learning_rate: float, seed: int) -> float | None:
        """The loss of the batch, or None if the step was skipped: the loss or the gradient was NaN or infinite.

        With fp16 a few steps are always skipped: the scaler begins high, and lowers its factor at each of them. seed: of all
        random numbers inside the network, so that a step is reproducible. Raises AutosegError if the memory is too small for
        a single image.
        """
        set_learning_rate(self.optimizer, learning_rate)
        _copy(self._buffers, self._saved_buffers)
        while (loss := self._gradients(batch, seed)) is None:
            self.optimizer.zero_grad(set_to_none=True)
            _copy(self._saved_buffers, self._buffers)
            self._halve()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._weights, self._clip)
        # One synchronisation with the device, not two.
        loss_value, grad_norm = torch.stack([self._team.all_reduce(loss), norm.to(loss)]).tolist()
        good = math.isfinite(loss_value) and math.isfinite(grad_norm)
        # The scaler skips the step itself, and needs to see it to lower its factor.
        if good or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if not good:
            _copy(self._saved_buffers, self._buffers)
        return float(loss_value) if good else None

    @property
    def accumulate(self) -> int:
        """Number of micro-batches of a batch: the plan's, or more where these did not fit into the memory."""
        return self._plan.accumulate

    @accumulate.setter
    def accumulate(self, parts: int) -> None:
        self._plan = replace(self._plan, accumulate=parts)

    def _gradients(self, batch: Batch, seed: int) -> Tensor | None:
        """Gradients and loss of a batch, None if they did not fit into the memory."""
        torch.manual_seed(seed)
        self.optimizer.zero_grad(set_to_none=True)
        return within_memory(lambda: self._backward(batch))

    def _halve(self) -> None:
        """Split the batch into twice as many parts. Raises AutosegError if one has a single image already."""
        before = len(micro_batches(self._plan)[0])
        if self._team.size > 1:
            raise AutosegError(
                f"the memory of {self._device} is too small for this process's shard of {before} images",
                f"--set models.{self._plan.model}.accumulate={2 * self._plan.accumulate}",
            )
        if before == 1:
            height, width = self._plan.input_size
            raise AutosegError(
                f"1 image of {height}x{width} pixels does not fit: the memory of {self._device} is too small to train "
                f"{self._plan.model} {self._plan.variant}",
                f"plan again for less memory (--memory), use smaller images "
                f"(--set models.{self._plan.model}.input_size={height // 2},{width // 2}), or close other programs",
            )
        self.accumulate = math.ceil(self._plan.batch_size / math.ceil(before / 2))
        logger.warning(
            f"the memory of {self._device} is too small for {before} images at once: going on with "
            f"{len(micro_batches(self._plan)[0])} at once, in {len(micro_batches(self._plan))} parts of the same batch"
        )

    def _backward(self, batch: Batch) -> Tensor:
        """Accumulate the gradients of all micro-batches. Returns the mean loss, or this process's part of it."""
        total = torch.zeros((), device=self._device)
        start = 0
        sizes = [len(indices) for indices in local_indices(self._plan, self._team)]
        for number, size in enumerate(sizes):
            indices = slice(start, start + size)
            start += size
            images = batch.images[indices].to(self._device, non_blocking=True)
            labels = batch.labels[indices].to(self._device, non_blocking=True)
            known = batch.statistics
            statistics = None if known is None else known[indices].to(self._device, non_blocking=True)
            inputs = normalise(images, self._plan.normalisation, statistics).contiguous(memory_format=self._format)
            weight = self._fraction(number)
            with ExitStack() as context:
                if self._ddp is not None and number < len(sizes) - 1:
                    # Gradients are averaged over processes once, with the last micro-batch.
                    context.enter_context(self._ddp.no_sync())
                maps = self._maps(batch, indices)
                with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
                    output = self._passes(inputs) if maps is None else self._passes(inputs, maps)
                loss = self._loss(output, labels) * weight
                # DDP averages gradients, but the processes' parts of the loss must be summed.
                self.scaler.scale(loss * self._team.size).backward()
            total += loss.detach()
        return total

    def _maps(self, batch: Batch, indices: slice) -> list[Tensor] | None:
        """What the frozen encoder gives for a micro-batch, float32, if it is known."""
        if not isinstance(batch, EncodedBatch):
            return None
        return [one[indices].to(self._device, non_blocking=True).float() for one in batch.maps]

    def _fraction(self, number: int) -> float:
        """Fraction of the batch in a micro-batch."""
        return len(micro_batches(self._plan)[number]) / self._plan.batch_size


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling for fp16, on any device; disabled at other precisions."""
    return torch.amp.GradScaler(device.type, enabled=trainable(precision, device) == torch.float16)


def memory_format(model_plan: ModelPlan) -> torch.memory_format:
    """The memory format of a plan; contiguous by default."""
    return torch.channels_last if model_plan.memory_format == "channels_last" else torch.contiguous_format


def micro_batches(model_plan: ModelPlan) -> list[range]:
    """Sample indices of each micro-batch (gradient accumulation)."""
    size = model_plan.batch_size
    step = math.ceil(size / max(1, model_plan.accumulate))
    return [range(start, min(start + step, size)) for start in range(0, size, step)]


def local_indices(model_plan: ModelPlan, team: DistributedContext = SINGLE_PROCESS) -> list[Sequence[int]]:
    """Sample indices of this process in each micro-batch. Raises AutosegError if there are more processes than samples."""
    batches = micro_batches(model_plan)
    smallest = min(len(indices) for indices in batches)
    if smallest < team.size:
        raise AutosegError(
            f"a batch of {smallest} image{'s' if smallest > 1 else ''} cannot be split over {team.size} processes",
            f"start fewer processes, or use larger batches: --set models.{model_plan.model}.accumulate=1 "
            f"--set models.{model_plan.model}.batch_size={team.size * len(batches)}",
        )
    return [team.shard(indices) for indices in batches]


def _wrap_ddp(network: SegmentationNetwork, every_weight: bool) -> nn.parallel.DistributedDataParallel:
    # DDP would wait for the gradients of unused parameters.
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, network.unused_parameters)
    return nn.parallel.DistributedDataParallel(network, find_unused_parameters=not every_weight)


def step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """Seed of the random numbers inside the network, for one step and one process."""
    return int(generator(seed, epoch, step, rank, _NETWORK_STREAM).integers(2**63))


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:
        torch._foreach_copy_(target, source)
