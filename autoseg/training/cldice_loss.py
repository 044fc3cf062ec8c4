"""Soft clDice: agreement of centre lines, which a gap in a thin vessel costs much more than its few pixels.

Shit et al.: clDice - a novel topology-preserving loss function for tubular structure segmentation. CVPR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext

# Structures up to twice as many pixels thick are thinned to a line.
_THINNINGS = 10
_SMOOTH = 1.0


def centreline_dice(
    probabilities: Tensor, targets: Tensor, pixels: Tensor, team: DistributedContext = SINGLE_PROCESS
) -> Tensor:
    """1 - soft clDice, the mean over outputs that occur in the batch; (B, K, H, W) twice and (B, H, W) of what counts.

    Harmonic mean of the share of the predicted centre line inside the reference, and of the reference's inside the
    prediction. In a team each process returns its part: the parts add up to the loss.
    """
    counted = pixels.unsqueeze(1)
    probabilities, targets = probabilities * counted, (targets * counted).float()
    predicted = centreline(probabilities)
    with torch.no_grad():
        wanted = centreline(targets)
    axes = (0, 2, 3)
    inside, line, covered, wanted_line, size = team.total(
        torch.stack([
            (predicted * targets).sum(axes), predicted.sum(axes), (wanted * probabilities).sum(axes), wanted.sum(axes),
            targets.sum(axes),
        ])
    )  # fmt: skip
    precision, sensitivity = (inside + _SMOOTH) / (line + _SMOOTH), (covered + _SMOOTH) / (wanted_line + _SMOOTH)
    occurs = size > 0
    missed = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    loss: Tensor = (missed * occurs).sum() / occurs.sum().clamp(min=1) / team.size
    return loss


def centreline(masks: Tensor) -> Tensor:
    """What is left of soft masks (B, K, H, W) in 0..1 when everything thick is thinned: what each opening removes."""
    line = F.relu(masks - _dilated(_eroded(masks)))
    for _ in range(_THINNINGS):
        masks = _eroded(masks)
        removed = F.relu(masks - _dilated(_eroded(masks)))
        line = line + F.relu(removed - line * removed)
    return line


def _eroded(masks: Tensor) -> Tensor:
    """Minimum over the cross of four neighbours."""
    rows = -F.max_pool2d(-masks, (3, 1), 1, (1, 0))
    columns = -F.max_pool2d(-masks, (1, 3), 1, (0, 1))
    return torch.minimum(rows, columns)


def _dilated(masks: Tensor) -> Tensor:
    """Maximum over the square of eight neighbours."""
    return F.max_pool2d(masks, 3, 1, 1)
