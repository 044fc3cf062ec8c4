"""Soft clDice: overlap of centre lines. A gap in a thin vessel costs much more than its few pixels.

Shit et al.: clDice - a novel topology-preserving loss function for tubular structure segmentation. CVPR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext

# Structures up to twice this many pixels thick become a line.
_ITERATIONS = 10
_SMOOTH = 1.0


def soft_cldice_loss(
    probabilities: Tensor, targets: Tensor, valid: Tensor, team: DistributedContext = SINGLE_PROCESS
) -> Tensor:
    """1 - soft clDice, averaged over the outputs that occur in the batch.

    probabilities, targets: (B, K, H, W). valid: (B, H, W), False at ignored pixels. soft clDice is the harmonic mean of two
    fractions: of the predicted centre line inside the reference, and of the reference's centre line inside the prediction.
    With several processes, each returns its part of the loss; the sum of the parts is the loss.
    """
    mask = valid.unsqueeze(1)
    probabilities, targets = probabilities * mask, (targets * mask).float()
    predicted_line = soft_skeleton(probabilities)
    with torch.no_grad():
        reference_line = soft_skeleton(targets)
    axes = (0, 2, 3)
    tp_precision, predicted_length, tp_sensitivity, reference_length, size = team.all_reduce(
        torch.stack([
            (predicted_line * targets).sum(axes), predicted_line.sum(axes),
            (reference_line * probabilities).sum(axes), reference_line.sum(axes), targets.sum(axes),
        ])
    )  # fmt: skip
    precision = (tp_precision + _SMOOTH) / (predicted_length + _SMOOTH)
    sensitivity = (tp_sensitivity + _SMOOTH) / (reference_length + _SMOOTH)
    occurs = size > 0
    losses = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    loss: Tensor = (losses * occurs).sum() / occurs.sum().clamp(min=1) / team.size
    return loss


def soft_skeleton(masks: Tensor) -> Tensor:
    """Soft skeleton of masks (B, K, H, W) with values in 0..1: the union of what each opening removes."""
    line = F.relu(masks - _dilate(_erode(masks)))
    for _ in range(_ITERATIONS):
        masks = _erode(masks)
        removed = F.relu(masks - _dilate(_erode(masks)))
        line = line + F.relu(removed - line * removed)
    return line


def _erode(masks: Tensor) -> Tensor:
    """Minimum over the cross of four neighbours."""
    rows = -F.max_pool2d(-masks, (3, 1), 1, (1, 0))
    columns = -F.max_pool2d(-masks, (1, 3), 1, (0, 1))
    return torch.minimum(rows, columns)


def _dilate(masks: Tensor) -> Tensor:
    """Maximum over the square of eight neighbours."""
    return F.max_pool2d(masks, 3, 1, 1)
