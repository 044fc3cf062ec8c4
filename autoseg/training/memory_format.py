"""How tensors lie in memory while a network trains: a rule by device, precision and model. It changes results by rounding
alone, so a run keeps the format it began with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from autoseg.inference.precision import usable
from autoseg.models.base import ModelSpec
from autoseg.planning import overrides
from autoseg.schema.plan import Decision
from autoseg.training.trainer import RunConfig

MemoryFormat = Literal["contiguous", "channels_last"]


def choose(spec: ModelSpec, precision: str, device: torch.device) -> tuple[MemoryFormat, str]:
    """The format and the reason. precision: of the plan, see `inference.precision.usable`.

    Source for CUDA: PyTorch's "Channels Last Memory Format" tutorial; for processors: documentation/training.md.
    """
    if device.type == "cuda" and usable(precision, device) is not None:
        return "channels_last", "tensor cores take half-precision convolutions in this format"
    if device.type == "cpu" and spec.channels_last_on_cpu:
        return "channels_last", "measured to be faster for this network on a processor"
    return "contiguous", f"the usual one: no gain is known for this network on {device.type}"


def with_memory_format(task: RunConfig, spec: ModelSpec, checkpoint_format: MemoryFormat | None) -> RunConfig:
    """The task with a memory format in place of "auto", and the reason in its plan.

    checkpoint_format: the format of the checkpoint to resume from, None for a fresh run.
    """
    if task.model_plan.memory_format != "auto":
        return task
    chosen, reason = choose(spec, task.model_plan.precision, task.device)
    if checkpoint_format not in (None, chosen):
        chosen, reason = checkpoint_format, "the format this run began with"
    model_plan = replace(task.model_plan, memory_format=chosen)
    decision = Decision(f"models.{model_plan.model}.memory_format", chosen, reason)
    plan = overrides.with_decision(task.plan, decision)
    return replace(task, model_plan=model_plan, plan=replace(plan, models={**plan.models, model_plan.model: model_plan}))
