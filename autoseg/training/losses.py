"""Losses on logits, computed in float32 whatever the network's precision: cross entropy or its sigmoid form, with soft Dice.

Soft Dice and clDice are taken over the whole batch, over foreground outputs that occur in it, as nnU-Net's Dice (Isensee et
al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.models.contract import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.training.centreline import centreline_dice
from autoseg.training.team import ALONE, Team

_SMOOTH = 1e-5


class Loss:
    """The loss of a plan, for what a network returns in training mode.

    name: "ce" and "dice_ce" for classes that exclude each other; "bce" and "dice_bce" give each output a sigmoid of its
    own. For two classes both mean the same: a sigmoid of the difference of the logits is their softmax. Raises AutosegError
    for "ce" with regions, which overlap. cldice: weight of that term; full-size logits only, since thin structures are lost
    at the size of auxiliary ones. team: has the batch in shares, each process returns its part of the loss. sigmoid:
    whether each output has one of its own.
    """

    def __init__(self, name: str, scheme: LabelScheme, cldice: float = 0.0, team: Team = ALONE) -> None:
        if scheme.regions and name in ("ce", "dice_ce"):
            raise AutosegError(
                f"the loss {name} is for classes that exclude each other, but the labels {', '.join(scheme.names)} are regions",
                f"--set training.loss={name.removesuffix('ce')}bce",
            )
        self._scheme = scheme
        self._dice = name.startswith("dice_")
        self._cldice = cldice
        self._team = team
        self.sigmoid = scheme.regions or (name.endswith("bce") and scheme.outputs > 2)

    def __call__(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """Scalar loss. labels: (B, H, W) label values, any integer type.

        Auxiliary logits are compared with the labels brought to their size, and weighted. A network's own loss replaces
        the plan's.
        """
        with torch.autocast(output.logits.device.type, enabled=False):
            if output.own_loss is not None:
                own = output.own_loss(self.targets(labels), self._valid(labels).unsqueeze(1).float())
                return own if self._team.size == 1 else own * self._share(labels)
            total = self._of(output.logits, labels, self._cldice)
            for logits, weight in output.auxiliary:
                total = total + weight * self._of(logits, nearest(labels, logits.shape[-2:]), 0.0)
            return total

    def targets(self, labels: Tensor) -> Tensor:
        """(B, H, W) label values -> (B, K, H, W) float32 in {0, 1}: where each output should say yes."""
        return torch.stack([_any_of(labels, members) for members in self._scheme.members], dim=1).float()

    def _valid(self, labels: Tensor) -> Tensor:
        if self._scheme.ignore is None:
            return torch.ones_like(labels, dtype=torch.bool)
        return labels != self._scheme.ignore

    def _share(self, labels: Tensor) -> Tensor:
        """This process's share of the team's images."""
        here = torch.tensor([float(len(labels))], device=labels.device)
        return (here / self._team.total(here)).squeeze()

    def _of(self, logits: Tensor, labels: Tensor, cldice: float) -> Tensor:
        pixels = self._valid(labels)
        split = self._sigmoids if self.sigmoid else self._softmax
        loss, probabilities, targets = split(logits.float(), labels, pixels)
        if self._dice:
            loss = loss + _soft_dice(probabilities, targets, pixels, self._team)
        if cldice:
            loss = loss + cldice * centreline_dice(probabilities, targets, pixels, self._team)
        return loss

    def _softmax(self, logits: Tensor, labels: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy, and foreground probabilities with their targets."""
        ignore = -100 if self._scheme.ignore is None else self._scheme.ignore
        log_probabilities = F.log_softmax(logits, dim=1)
        entropy = F.nll_loss(log_probabilities, labels.long(), ignore_index=ignore, reduction="sum")
        loss = entropy / self._team.total(pixels.sum()).clamp(min=1)
        targets = torch.stack([labels == members[0] for members in self._scheme.members[1:]], dim=1)
        return loss, log_probabilities[:, 1:].exp(), targets

    def _sigmoids(self, logits: Tensor, labels: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same where each output has a sigmoid of its own."""
        targets = self.targets(labels)
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * pixels.unsqueeze(1)
        loss = each.sum() / (self._team.total(pixels.sum()).clamp(min=1) * self._scheme.outputs)
        first = 0 if self._scheme.regions else 1
        return loss, logits[:, first:].sigmoid(), targets[:, first:]


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


def _soft_dice(probabilities: Tensor, targets: Tensor, pixels: Tensor, team: Team) -> Tensor:
    """1 - soft Dice, the mean over outputs that occur in the batch; (B, K, H, W) twice and (B, H, W) of what counts."""
    counted = pixels.unsqueeze(1)
    axes = (0, 2, 3)
    sums = [(probabilities * (targets * counted)).sum(axes), (probabilities * counted).sum(axes)]
    overlap, guessed, size = team.total(torch.stack([*sums, (targets * counted).float().sum(axes)]))
    dice = (2 * overlap + _SMOOTH) / (guessed + size + _SMOOTH)
    occurs = size > 0
    # An output that does not occur has no Dice worth pulling at; cross entropy tells the network to keep it down.
    loss: Tensor = ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1) / team.size
    return loss
