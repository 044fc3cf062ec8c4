"""From logits to probabilities. Training and prediction ask here which function it is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from autoseg.schema.dataset import LabelScheme

Activation = Literal["softmax", "sigmoid"]


def output_activation(loss: str, scheme: LabelScheme) -> Activation:
    """What turns the logits of a network into probabilities.

    loss: the `activation` of the loss it was trained with, "" if it works with both. Regions overlap, so each has a sigmoid.
    Two exclusive classes always have a softmax: it is the sigmoid of the difference of their logits.
    """
    if scheme.regions:
        return "sigmoid"
    return "sigmoid" if loss == "sigmoid" and scheme.outputs > 2 else "softmax"


def probabilities(logits: Tensor, activation: Activation, scheme: LabelScheme) -> Tensor:
    """(B, K, H, W) -> the same shape. Sigmoids of exclusive classes are divided by their sum, so that it is 1."""
    if activation == "softmax":
        return logits.softmax(dim=1)
    maps = logits.sigmoid()
    return maps if scheme.regions else maps / maps.sum(dim=1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
