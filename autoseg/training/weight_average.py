"""A moving average of the weights, for `Training.selection` "average"."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from autoseg.models.base import SegmentationNetwork

# About the last thousand steps count. Early on it is the last tenth of all steps, so that the initial weights are forgotten.
_DECAY = 0.999


def weight_average(network: SegmentationNetwork) -> AveragedModel:
    """A copy of the network whose `update_parameters(network)`, after each step, moves weights and buffers towards it.

    The network with the averaged weights is its `module`.
    """
    return AveragedModel(network, multi_avg_fn=_average, use_buffers=True)


def _average(averages: Any, current: Any, steps: Tensor | int) -> None:
    done = int(steps)
    get_ema_multi_avg_fn(min(_DECAY, (1 + done) / (10 + done)))(averages, current, steps)
