"""One step of the optimiser: parts of a batch and their shares, autocast, clipping, and what to do when a number is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from autoseg.data.loader import Batch
from autoseg.data.sampling import generator
from autoseg.inference.precision import autocast, usable
from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.plan import ModelPlan
from autoseg.support.errors import AutosegError
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.losses import Loss

# The stream of random numbers for dropout and its like, apart from those that choose and augment samples.
_NETWORK = 2


class Step:
    """Steps of one run. scaler: keeps fp16 gradients from vanishing; does nothing at other precisions.

    team: has each part of a batch in shares (see `shares`), and is given the batches so. What is random inside the network
    is drawn by each process for its share.
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
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self._format = memory_format(model_plan)
        network.to(memory_format=self._format)
        scales = device.type == "cuda" and usable(model_plan.precision, device) == torch.float16
        self.scaler = torch.amp.GradScaler("cuda" if scales else "cpu", enabled=scales)
        self._loss = loss
        self._plan = model_plan
        self._device = device
        self._clip = clip if clip > 0 else math.inf
        self._team = team
        self._shares = [len(share) for share in shares(model_plan, team)]
        self._parallel = None if team.size == 1 else _parallel(network)
        self._weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Running statistics change in the forward pass, before the loss is known to be a number.
        self._buffers = list(network.buffers())
        self._kept = [torch.empty_like(buffer) for buffer in self._buffers]

    def __call__(self, batch: Batch, learning_rate: float, seed: int) -> float | None:
        """The loss of the batch, or None where the step was left out: the loss or the gradient was not a number.

        seed: of all that is random inside the network, so that a step can be repeated exactly.
        """
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        _copy(self._buffers, self._kept)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._weights, self._clip)
        # One wait for the device, not two.
        value, length = torch.stack([self._team.total(loss), norm.to(loss)]).tolist()
        # At fp16 an infinite gradient is how the scaler finds its factor: it leaves the step out by itself.
        good = math.isfinite(value) and (math.isfinite(length) or self.scaler.is_enabled())
        if good or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if not good:
            _copy(self._kept, self._buffers)
        return float(value) if good else None

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of all parts, summed; the mean loss, or this process's part of it."""
        total = torch.zeros((), device=self._device)
        start = 0
        for number, share in enumerate(self._shares):
            chosen = slice(start, start + share)
            start += share
            images = batch.images[chosen].to(self._device, non_blocking=True)
            labels = batch.labels[chosen].to(self._device, non_blocking=True)
            statistics = None if batch.statistics is None else batch.statistics[chosen].to(self._device)
            inputs = normalise(images, self._plan.normalisation, statistics).contiguous(memory_format=self._format)
            weight = self._weight_of(number)
            with ExitStack() as context:
                if self._parallel is None:
                    network: nn.Module = self.network
                else:
                    network = self._parallel
                    if number < len(self._shares) - 1:
                        # Gradients are summed over processes once, with the last part.
                        context.enter_context(self._parallel.no_sync())
                with autocast(self._plan.precision, self._device):
                    output = network(inputs)
                loss = self._loss(output, labels) * weight
                # Processes' gradients are averaged, where their parts of the loss add up.
                self.scaler.scale(loss * self._team.size).backward()
            total += loss.detach()
        return total

    def _weight_of(self, number: int) -> float:
        """A part's share of the batch."""
        return len(parts(self._plan)[number]) / self._plan.batch_size


def memory_format(model_plan: ModelPlan) -> torch.memory_format:
    """How a plan wants tensors to lie in memory; rows first where it does not say."""
    return torch.channels_last if model_plan.memory_format == "channels_last" else torch.contiguous_format


def parts(model_plan: ModelPlan) -> list[range]:
    """The samples of a batch that go through the network at once, part by part."""
    size = model_plan.batch_size
    part = math.ceil(size / max(1, model_plan.accumulate))
    return [range(start, min(start + part, size)) for start in range(0, size, part)]


def shares(model_plan: ModelPlan, team: DistributedContext = SINGLE_PROCESS) -> list[Sequence[int]]:
    """Of each part, the samples that are this process's. Raises AutosegError where there are more processes than samples."""
    found = parts(model_plan)
    least = min(len(part) for part in found)
    if least < team.size:
        raise AutosegError(
            f"{team.size} processes cannot share {least} image{'s' if least > 1 else ''} of a batch among them",
            f"start fewer processes, or larger parts: --set models.{model_plan.model}.accumulate=1 "
            f"--set models.{model_plan.model}.batch_size={team.size * len(found)}",
        )
    return [team.share(part) for part in found]


def _parallel(network: SegmentationNetwork) -> nn.parallel.DistributedDataParallel:
    # What never gets a gradient would be waited for.
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, network.unused_parameters)
    return nn.parallel.DistributedDataParallel(network)


def step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """The seed of what is random inside the network in one step, for one process."""
    return int(generator(seed, epoch, step, rank, _NETWORK).integers(2**63))


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:
        torch._foreach_copy_(target, source)
