"""Optimiser and learning-rate schedules. A schedule is a function of the step, so it has no state to resume.

An optimiser is a function `optimizer(groups, learning_rate) -> torch.optim.Optimizer`, looked up by name (`OPTIMIZERS`, entry
points "autoseg.optimizers"). groups: a list of {"params": [...], "weight_decay": float}, as for PyTorch's optimisers;
all parameters of a group are on one device. Its `state_dict` must hold everything needed to resume. The trainer sets the
learning rate of every group before each step. Optional attribute `states`: number of tensors kept per parameter, for the
planner's memory estimate; default 2.

A schedule is a function `schedule(done) -> factor`, looked up by name (`SCHEDULES`, entry points "autoseg.schedules"). done:
the fraction of the steps after warm-up that are done, from 0 to just below 1. factor: 0 or more; the plan's learning rate is
multiplied by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from autoseg.schema.plan import Training
from autoseg.support.extensions import OPTIMIZERS, SCHEDULES

logger = logging.getLogger(__name__)

_POLY_POWER = 0.9
_SGD_MOMENTUM = 0.99
# Weights of these layers are scales, so weight decay would only change the step size.
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)
Groups = Sequence[dict[str, Any]]


def make_optimizer(network: nn.Module, training: Training, learning_rate: float) -> torch.optim.Optimizer:
    """The plan's optimiser over a network's trainable parameters; weight decay on weights only (see `split_by_decay`)."""
    with_decay, without = split_by_decay(network)
    groups = [
        {"params": with_decay, "weight_decay": training.weight_decay},
        {"params": without, "weight_decay": 0.0},
    ]
    make: Callable[[Groups, float], torch.optim.Optimizer] = OPTIMIZERS.get(training.optimizer)
    return make([group for group in groups if group["params"]], learning_rate)


def adamw(groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW, fused on CPUs and CUDA: one pass over the weights, without tensors in between.

    The checkpoint stores whether it is fused, so a resumed run does not change.
    """
    device = groups[0]["params"][0].device.type
    if device in ("cpu", "cuda"):
        try:
            return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
        except RuntimeError:
            logger.info(f"this PyTorch has no fused AdamW for {device}; using the plain one: same result, slower")
    return torch.optim.AdamW(groups, lr=learning_rate)


def sgd(groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.99, as in nnU-Net."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=_SGD_MOMENTUM, nesterov=True)


def split_by_decay(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with weight decay and those without: biases, weights of norms and all other one-dimensional ones."""
    norms = {id(parameter) for module in network.modules() if isinstance(module, _NORMS) for parameter in module.parameters()}
    yes: list[nn.Parameter] = []
    no: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        bare = parameter.ndim <= 1 or id(parameter) in norms or name.rsplit(".", 1)[-1] == "bias"
        (no if bare else yes).append(parameter)
    return yes, no


def rex(done: float) -> float:
    """Factor of the learning rate after a fraction `done` of the steps (Chen et al., REX, MLSys 2022)."""
    return (1 - done) / (0.5 + 0.5 * (1 - done))


def poly(done: float) -> float:
    """The polynomial schedule, power 0.9 as in DeepLab and nnU-Net."""
    return float((1 - done) ** _POLY_POWER)


def learning_rate_at(step: int, steps: int, base: float, schedule: str, warmup: int = 0) -> float:
    """The learning rate of a step (counted from 0) of `steps`: rises linearly over `warmup` steps, then follows `schedule`."""
    if step < warmup:
        return base * (step + 1) / warmup
    factor: float = SCHEDULES.get(schedule)((step - warmup) / max(1, steps - warmup))
    return base * factor
