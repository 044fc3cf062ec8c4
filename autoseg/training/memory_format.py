"""Memory format of tensors in training, chosen by device and model. It changes results only by rounding. A resumed
run keeps its format.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from autoseg.models.base import ModelSpec
from autoseg.planning import overrides
from autoseg.schema.plan import Decision
from autoseg.training.trainer import RunConfig

MemoryFormat = Literal["contiguous", "channels_last"]


def choose(spec: ModelSpec, device: torch.device) -> tuple[MemoryFormat, str]:
    """The format and the reason.

    Measurements: documentation/performance.md for GPUs, documentation/training.md for CPUs.
    """
    if device.type == "cuda" and not spec.channels_last_on_cuda:
        return "contiguous", "measured to be faster for this network on a GPU"
    if device.type == "cuda":
        return "channels_last", "tensor cores need this format for convolutions, in half precision and TF32"
    if device.type == "cpu" and spec.channels_last_on_cpu:
        return "channels_last", "measured to be faster for this network on a CPU"
    return "contiguous", f"the default: no gain is known for this network on {device.type}"


def with_memory_format(config: RunConfig, spec: ModelSpec, checkpoint_format: MemoryFormat | None) -> RunConfig:
    """The run configuration with a memory format instead of "auto", and the reason in its plan.

    checkpoint_format: the format of the checkpoint to resume from, None for a fresh run.
    """
    if config.model_plan.memory_format != "auto":
        return config
    chosen, reason = choose(spec, config.device)
    if checkpoint_format not in (None, chosen):
        chosen, reason = checkpoint_format, "the format this run started with"
    model_plan = replace(config.model_plan, memory_format=chosen)
    decision = Decision(f"models.{model_plan.model}.memory_format", chosen, reason)
    plan = overrides.with_decision(config.plan, decision)
    return replace(config, model_plan=model_plan, plan=replace(plan, models={**plan.models, model_plan.model: model_plan}))
