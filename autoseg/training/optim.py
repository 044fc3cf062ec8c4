"""Optimiser and learning-rate schedules. A schedule is a function of the step, so that there is no state to resume."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from autoseg.schema.plan import Training

logger = logging.getLogger(__name__)

_POLY_POWER = 0.9
_SGD_MOMENTUM = 0.99
# Layers whose weights are scales, not directions: decaying them only changes the step size.
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)


def make_optimizer(network: nn.Module, training: Training, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.99 as nnU-Net; weight decay on weights only (see `decayed`).

    On a processor AdamW goes over each weight once, not once for each operation: a quarter of the time. A checkpoint
    tells which way its run goes, so that runs that began without it go on without it.
    """
    with_decay, without = decayed(network)
    groups = [
        {"params": with_decay, "weight_decay": training.weight_decay},
        {"params": without, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=_SGD_MOMENTUM, nesterov=True)
    if next(network.parameters()).device.type == "cpu":
        try:
            return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
        except RuntimeError:
            logger.info("this PyTorch has no fused AdamW for processors: the plain one does the same, slower")
    return torch.optim.AdamW(groups, lr=learning_rate)


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


_SCHEDULES: dict[str, Callable[[float], float]] = {"rex": rex, "poly": poly}


def learning_rate_at(step: int, steps: int, base: float, schedule: str, warmup: int = 0) -> float:
    """The learning rate of a step (counted from 0) of `steps`: rises linearly over `warmup` steps, then follows `schedule`."""
    if step < warmup:
        return base * (step + 1) / warmup
    return base * _SCHEDULES[schedule]((step - warmup) / max(1, steps - warmup))
