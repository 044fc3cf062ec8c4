"""Optimiser and learning-rate schedules. A schedule is a function of the step, so that there is no state to resume.

An optimiser is a function `optimizer(groups, learning_rate) -> torch.optim.Optimizer`, looked up by name (`OPTIMIZERS`, entry
points "autoseg.optimizers"). groups: a list of {"params": [...], "weight_decay": float}, as PyTorch's optimisers take them;
all parameters of a group lie on one device. Its `state_dict` has to hold all it needs to go on after a break. The learning rate
of every group is set anew before each step. `states`: how many tensors of a parameter's size it keeps (the planner counts
them; 2 where it does not say).

A schedule is a function `schedule(done) -> factor`, looked up by name (`SCHEDULES`, entry points "autoseg.schedules"). done:
the share of the steps after warm-up that are over, from 0 to just below 1. factor: 0 or more, what the plan's learning rate is
multiplied by.
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
# Layers whose weights are scales, not directions: decaying them only changes the step size.
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)
Groups = Sequence[dict[str, Any]]


def make_optimizer(network: nn.Module, training: Training, learning_rate: float) -> torch.optim.Optimizer:
    """The plan's optimiser over a network's trainable parameters; weight decay on weights only (see `decayed`)."""
    with_decay, without = decayed(network)
    groups = [
        {"params": with_decay, "weight_decay": training.weight_decay},
        {"params": without, "weight_decay": 0.0},
    ]
    make: Callable[[Groups, float], torch.optim.Optimizer] = OPTIMIZERS.get(training.optimizer)
    return make([group for group in groups if group["params"]], learning_rate)


def adamw(groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW. On a processor it goes over each weight once, not once for each operation: a quarter of the time.

    A checkpoint holds which way its run goes, so that runs that began without it continue without it.
    """
    if groups[0]["params"][0].device.type == "cpu":
        try:
            return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
        except RuntimeError:
            logger.info("this PyTorch has no fused AdamW for processors: the plain one does the same, slower")
    return torch.optim.AdamW(groups, lr=learning_rate)


def sgd(groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.99, as nnU-Net."""
    return torch.optim.SGD(groups, lr=learning_rate, momentum=_SGD_MOMENTUM, nesterov=True)


def decayed(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that decay and those that do not: biases, norms' weights and all other one-dimensional ones."""
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
    """Share of the first learning rate when a share `done` of the steps is over (Chen et al., REX, MLSys 2022)."""
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
