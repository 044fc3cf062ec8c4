"""Optimiser and learning-rate schedules. A schedule is a function of the step, so it has no state to resume.

An optimiser is a function `optimizer(groups, learning_rate) -> torch.optim.Optimizer`, looked up by name (`OPTIMIZERS`, entry
points "autoseg.optimizers"). groups: a list of {"params": [...], "weight_decay": float}, as for PyTorch's optimisers;
all parameters of a group are on one device. Groups of an encoder with a rate of its own have its factor too, "lr_scale". Its
`state_dict` must hold everything needed to resume. The trainer sets the learning rate of every group before each step. Optional
attribute `states`: number of tensors kept per parameter, for the planner's memory estimate; default 2.

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

from autoseg.models.base import SegmentationNetwork
from autoseg.schema.plan import ModelPlan, Training
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import OPTIMIZERS, SCHEDULES

logger = logging.getLogger(__name__)

_POLY_POWER = 0.9
_SGD_MOMENTUM = 0.99
# Key of a parameter group: the factor of its learning rate.
SCALE = "lr_scale"
# Weights of these layers are scales, so weight decay would only change the step size.
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)
Groups = Sequence[dict[str, Any]]


def make_optimizer(
    network: nn.Module, training: Training, learning_rate: float, model_plan: ModelPlan | None = None
) -> torch.optim.Optimizer:
    """The plan's optimiser over a network's trainable parameters; weight decay on weights only (see `split_by_decay`).

    model_plan: with the rate of the encoder and its layers, and weight decay of its own; without it all parts learn alike.
    Raises AutosegError for a rate of an encoder or of layers that the network does not have.
    """
    decay = training.weight_decay
    if model_plan is not None and model_plan.weight_decay is not None:
        decay = model_plan.weight_decay
    scales = {} if model_plan is None else _scales(network, model_plan)
    with_decay, without = split_by_decay(network)
    groups: list[dict[str, Any]] = []
    for scale in sorted({1.0, *scales.values()}, reverse=True):
        for parameters, its_decay in ((with_decay, decay), (without, 0.0)):
            group: dict[str, Any] = {
                "params": [one for one in parameters if scales.get(id(one), 1.0) == scale], "weight_decay": its_decay
            }  # fmt: skip
            groups.append(group if scale == 1.0 else group | {SCALE: scale})
    make: Callable[[Groups, float], torch.optim.Optimizer] = OPTIMIZERS.get(training.optimizer)
    return make([group for group in groups if group["params"]], learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group: the encoder's have a factor of their own."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(SCALE, 1.0)


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The rate that was set last, without factors."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group.get(SCALE, 1.0))


def _scales(network: nn.Module, model_plan: ModelPlan) -> dict[int, float]:
    """id of a parameter of the encoder -> factor of its rate; empty if all parts learn alike."""
    rate, decay, field = model_plan.encoder_rate, model_plan.layer_decay, f"models.{model_plan.model}"
    if rate == 1.0 and decay == 1.0:
        return {}
    names = network.encoder_parameters() if isinstance(network, SegmentationNetwork) else []
    layers = network.encoder_layers() if isinstance(network, SegmentationNetwork) else {}
    if not names:
        raise AutosegError(f"{model_plan.model} has no encoder of its own", f"leave {field}.encoder_rate and layer_decay at 1")
    if decay != 1.0 and not layers:
        raise AutosegError(f"the layers of {model_plan.model} are not told apart", f"leave {field}.layer_decay at 1")
    # As timm and BEiT count: the decoder is the last layer, so the encoder's last one has one factor.
    decoder = max(layers.values(), default=-1) + 1
    parameters = dict(network.named_parameters())
    return {id(parameters[name]): rate * decay ** (decoder - layers.get(name, decoder)) for name in names}


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
