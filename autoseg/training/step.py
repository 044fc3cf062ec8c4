"""One step of the optimiser: parts of a batch, autocast, clipping, and what to do when a number is none."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from autoseg.data.loader import Batch
from autoseg.data.sampling import generator
from autoseg.inference.precision import autocast, usable
from autoseg.models.contract import SegmentationNetwork
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.plan import ModelPlan
from autoseg.training.losses import Loss

# The stream of random numbers for dropout and its like, apart from those that choose and augment samples.
_NETWORK = 2


class Step:
    """Steps of one run. scaler: keeps fp16 gradients from vanishing; does nothing at other precisions."""

    def __init__(
        self,
        network: SegmentationNetwork,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        model_plan: ModelPlan,
        clip: float,
        device: torch.device,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        scales = device.type == "cuda" and usable(model_plan.precision, device) == torch.float16
        self.scaler = torch.amp.GradScaler("cuda" if scales else "cpu", enabled=scales)
        self._loss = loss
        self._plan = model_plan
        self._device = device
        self._clip = clip if clip > 0 else math.inf
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
        value, length = torch.stack([loss, norm.to(loss)]).tolist()
        # At fp16 an infinite gradient is how the scaler finds its factor: it leaves the step out by itself.
        good = math.isfinite(value) and (math.isfinite(length) or self.scaler.is_enabled())
        if good or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if not good:
            _copy(self._kept, self._buffers)
        return float(value) if good else None

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of all parts, summed; the mean loss."""
        size = len(batch.images)
        part = math.ceil(size / max(1, self._plan.accumulate))
        total = torch.zeros((), device=self._device)
        for start in range(0, size, part):
            chosen = slice(start, start + part)
            images = batch.images[chosen].to(self._device, non_blocking=True)
            labels = batch.labels[chosen].to(self._device, non_blocking=True)
            statistics = None if batch.statistics is None else batch.statistics[chosen].to(self._device)
            inputs = normalise(images, self._plan.normalisation, statistics)
            with autocast(self._plan.precision, self._device):
                output = self.network(inputs)
            loss = self._loss(output, labels) * (len(images) / size)
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total


def step_seed(seed: int, epoch: int, step: int) -> int:
    """The seed of what is random inside the network in one step."""
    return int(generator(seed, epoch, step, 0, _NETWORK).integers(2**63))


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:
        torch._foreach_copy_(target, source)
