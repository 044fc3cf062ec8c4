"""Losses on logits, computed in float32 whatever the network's precision: cross entropy or its sigmoid form, with soft Dice.

Soft Dice is taken over the whole batch, over foreground outputs that occur in it, as nnU-Net's (Isensee et al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.models.contract import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError

_SMOOTH = 1e-5


class Loss:
    """The loss of a plan, for what a network returns in training mode.

    name: "ce" and "dice_ce" for classes that exclude each other; "bce" and "dice_bce" give each output a sigmoid of its
    own. For two classes both mean the same: a sigmoid of the difference of the logits is their softmax. Raises AutosegError
    for "ce" with regions, which overlap. sigmoid: whether each output has one of its own.
    """

    def __init__(self, name: str, scheme: LabelScheme) -> None:
        if scheme.regions and name in ("ce", "dice_ce"):
            raise AutosegError(
                f"the loss {name} is for classes that exclude each other, but the labels {', '.join(scheme.names)} are regions",
                f"--set training.loss={name.removesuffix('ce')}bce",
            )
        self._scheme = scheme
        self._dice = name.startswith("dice_")
        self.sigmoid = scheme.regions or (name.endswith("bce") and scheme.outputs > 2)

    def __call__(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """Scalar loss. labels: (B, H, W) label values, any integer type.

        Auxiliary logits are compared with the labels brought to their size, and weighted. A network's own loss replaces
        the plan's.
        """
        with torch.autocast(output.logits.device.type, enabled=False):
            if output.own_loss is not None:
                return output.own_loss(self.targets(labels), self._valid(labels).unsqueeze(1).float())
            total = self._of(output.logits, labels)
            for logits, weight in output.auxiliary:
                total = total + weight * self._of(logits, nearest(labels, logits.shape[-2:]))
            return total

    def targets(self, labels: Tensor) -> Tensor:
        """(B, H, W) label values -> (B, K, H, W) float32 in {0, 1}: where each output should say yes."""
        return torch.stack([_any_of(labels, members) for members in self._scheme.members], dim=1).float()

    def _valid(self, labels: Tensor) -> Tensor:
        if self._scheme.ignore is None:
            return torch.ones_like(labels, dtype=torch.bool)
        return labels != self._scheme.ignore

    def _of(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float()
        return self._of_sigmoids(logits, labels) if self.sigmoid else self._of_softmax(logits, labels)

    def _of_softmax(self, logits: Tensor, labels: Tensor) -> Tensor:
        ignore = -100 if self._scheme.ignore is None else self._scheme.ignore
        log_probabilities = F.log_softmax(logits, dim=1)
        pixels = self._valid(labels)
        entropy = F.nll_loss(log_probabilities, labels.long(), ignore_index=ignore, reduction="sum")
        loss = entropy / pixels.sum().clamp(min=1)
        if self._dice:
            targets = torch.stack([labels == members[0] for members in self._scheme.members[1:]], dim=1)
            loss = loss + _soft_dice(log_probabilities[:, 1:].exp(), targets, pixels)
        return loss

    def _of_sigmoids(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets, pixels = self.targets(labels), self._valid(labels)
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * pixels.unsqueeze(1)
        loss = each.sum() / (pixels.sum().clamp(min=1) * self._scheme.outputs)
        if self._dice:
            first = 0 if self._scheme.regions else 1
            loss = loss + _soft_dice(logits[:, first:].sigmoid(), targets[:, first:], pixels)
        return loss


def nearest(labels: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W) -> (B, h, w): the value at the middle of each new pixel."""
    if labels.shape[-2:] == size:
        return labels
    rows, columns = (
        ((torch.arange(new, device=labels.device) + 0.5) * (old / new)).long()
        for new, old in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows][:, :, columns]


def _any_of(labels: Tensor, members: tuple[int, ...]) -> Tensor:
    found = labels == members[0]
    for value in members[1:]:
        found = found | (labels == value)
    return found


def _soft_dice(probabilities: Tensor, targets: Tensor, pixels: Tensor) -> Tensor:
    """1 - soft Dice, the mean over outputs that occur in the batch; (B, K, H, W) twice and (B, H, W) of what counts."""
    counted = pixels.unsqueeze(1)
    axes = (0, 2, 3)
    overlap = (probabilities * (targets * counted)).sum(axes)
    size = (targets * counted).float().sum(axes)
    dice = (2 * overlap + _SMOOTH) / ((probabilities * counted).sum(axes) + size + _SMOOTH)
    occurs = size > 0
    # An output that does not occur has no Dice worth pulling at; cross entropy tells the network to keep it down.
    return ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1)
