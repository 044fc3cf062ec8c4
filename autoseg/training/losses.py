"""Losses on logits, computed in float32 whatever the network's precision: cross entropy or its sigmoid form, with soft Dice.

A loss is a function `loss(logits, target) -> scalar tensor`, looked up by name (`LOSSES`, entry points "autoseg.losses").
logits: (B, K, H, W) float32, one map for each output in the order of the labels; rows before columns. target: a `Target`, with
the label values (B, H, W), the same as (B, K, H, W) maps of 0 and 1, and which pixels count. The loss is a mean over pixels or
images, so that it does not grow with the batch, and depends on no ignored pixel. It is called for the network's logits, and
for auxiliary ones of any size. Attributes it may have: `activation`, "softmax" (classes exclude each other; the loss is then
refused for regions) or "sigmoid" (each output by itself); without it both are expected to work. `sums_over_processes`: True
where it adds up over `target.team` itself and returns this process's part; otherwise a team takes the mean over its images.

Soft Dice and clDice are taken over the whole batch, over foreground outputs that occur in it, as nnU-Net's Dice (Isensee et
al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.models.base import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import LOSSES
from autoseg.training.cldice_loss import centreline_dice
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext

_SMOOTH = 1e-5
_FOR_REGIONS = {"ce": "bce", "dice_ce": "dice_bce"}
LossFunction = Callable[[Tensor, "Target"], Tensor]


@dataclass(frozen=True, eq=False)
class Target:
    """What a batch should be segmented as. labels: (B, H, W) label values, any integer type. team: see `DistributedContext`."""

    labels: Tensor
    scheme: LabelScheme
    team: DistributedContext = SINGLE_PROCESS

    @cached_property
    def one_hot(self) -> Tensor:
        """(B, K, H, W) float32 in {0, 1}: where each output should say yes. Zero at ignored pixels."""
        return torch.stack([_any_of(self.labels, members) for members in self.scheme.members], dim=1).float()

    @cached_property
    def valid(self) -> Tensor:
        """(B, H, W) bool: False where the pixel is to be ignored."""
        if self.scheme.ignore is None:
            return torch.ones_like(self.labels, dtype=torch.bool)
        return self.labels != self.scheme.ignore

    @property
    def foreground(self) -> slice:
        """The outputs (second axis) that are no background."""
        return slice(0 if self.scheme.regions else 1, None)

    def resized(self, size: torch.Size) -> Target:
        """The same at another size (h, w), see `nearest`."""
        return self if self.labels.shape[-2:] == size else Target(nearest(self.labels, size), self.scheme, self.team)


class Loss:
    """The loss of a plan, for what a network returns in training mode.

    name: of a loss in `LOSSES`. Raises AutosegError for an unknown one, and for one with softmax ("ce", "dice_ce") where the
    labels are regions, which overlap. cldice: weight of that term; full-size logits only, since thin structures are lost
    at the size of auxiliary ones. team: has the batch in shares, each process returns its part of the loss. sigmoid:
    whether each output has one of its own; for two classes both mean the same, a sigmoid of the difference of the logits.
    """

    def __init__(self, name: str, scheme: LabelScheme, cldice: float = 0.0, team: DistributedContext = SINGLE_PROCESS) -> None:
        self._loss = LOSSES.get(name)
        activation = getattr(self._loss, "activation", "")
        if scheme.regions and activation == "softmax":
            raise AutosegError(
                f"the loss {name} is for classes that exclude each other, but the labels {', '.join(scheme.names)} are regions",
                f"--set training.loss={_FOR_REGIONS.get(name, 'dice_bce')}",
            )
        self._name = name
        self._scheme = scheme
        self._cldice = cldice
        self._team = team
        self.sigmoid = scheme.regions or (activation == "sigmoid" and scheme.outputs > 2)

    def __call__(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """Scalar loss. labels: (B, H, W) label values, any integer type.

        Auxiliary logits are compared with the labels brought to their size, and weighted. A network's own loss replaces
        the plan's.
        """
        target = Target(labels, self._scheme, self._team)
        with torch.autocast(output.logits.device.type, enabled=False):
            if output.own_loss is not None:
                own = output.own_loss(target.one_hot, target.valid.unsqueeze(1).float())
                return own if self._team.size == 1 else own * self._share(labels)
            total = self._of(output.logits.float(), target)
            if self._cldice:
                total = total + self._cldice * self._centrelines(output.logits.float(), target)
            for logits, weight in output.auxiliary:
                total = total + weight * self._of(logits.float(), target.resized(logits.shape[-2:]))
            return total

    def _of(self, logits: Tensor, target: Target) -> Tensor:
        loss: Tensor = self._loss(logits, target)
        if loss.numel() != 1:
            raise AutosegError(
                f"the loss {self._name} of {LOSSES.source(self._name)} returns a tensor of shape {tuple(loss.shape)}",
                "return a scalar: the mean over the pixels that count",
            )
        if self._team.size == 1 or getattr(self._loss, "sums_over_processes", False):
            return loss.squeeze()
        return loss.squeeze() * self._share(target.labels)

    def _centrelines(self, logits: Tensor, target: Target) -> Tensor:
        probabilities = (logits.sigmoid() if self.sigmoid else logits.softmax(dim=1))[:, target.foreground]
        return centreline_dice(probabilities, target.one_hot[:, target.foreground], target.valid, self._team)

    def _share(self, labels: Tensor) -> Tensor:
        """This process's share of the team's images."""
        here = torch.tensor([float(len(labels))], device=labels.device)
        return (here / self._team.total(here)).squeeze()


def _with(activation: str) -> Callable[[LossFunction], LossFunction]:
    """Sets the attributes of autoseg's own losses, see the top."""

    def mark(loss: LossFunction) -> LossFunction:
        loss.activation, loss.sums_over_processes = activation, True  # type: ignore[attr-defined]
        return loss

    return mark


@_with("softmax")
def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Of classes that exclude each other."""
    return _softmax(logits, target)[0]


@_with("softmax")
def dice_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Cross entropy plus soft Dice."""
    loss, log_probabilities = _softmax(logits, target)
    labels, members = target.labels, target.scheme.members
    foreground = torch.stack([labels == values[0] for values in members[1:]], dim=1)
    return loss + _soft_dice(log_probabilities[:, 1:].exp(), foreground, target)


@_with("sigmoid")
def binary_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Of outputs with a sigmoid each; for two classes that exclude each other the same as cross entropy."""
    return _sigmoids(logits, target) if _own_sigmoids(target) else cross_entropy(logits, target)


@_with("sigmoid")
def dice_binary_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Binary cross entropy plus soft Dice."""
    if not _own_sigmoids(target):
        return dice_cross_entropy(logits, target)
    foreground = target.foreground
    return _sigmoids(logits, target) + _soft_dice(logits[:, foreground].sigmoid(), target.one_hot[:, foreground], target)


def _own_sigmoids(target: Target) -> bool:
    return target.scheme.regions or target.scheme.outputs > 2


def _softmax(logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Cross entropy and the logarithms of all probabilities (B, K, H, W)."""
    ignore = -100 if target.scheme.ignore is None else target.scheme.ignore
    log_probabilities = F.log_softmax(logits, dim=1)
    entropy = F.nll_loss(log_probabilities, target.labels.long(), ignore_index=ignore, reduction="sum")
    return entropy / target.team.total(target.valid.sum()).clamp(min=1), log_probabilities


def _sigmoids(logits: Tensor, target: Target) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, target.one_hot, reduction="none") * target.valid.unsqueeze(1)
    return each.sum() / (target.team.total(target.valid.sum()).clamp(min=1) * target.scheme.outputs)


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


def _soft_dice(probabilities: Tensor, targets: Tensor, target: Target) -> Tensor:
    """1 - soft Dice, the mean over outputs that occur in the batch. probabilities, targets: (B, K, H, W)."""
    counted, team = target.valid.unsqueeze(1), target.team
    axes = (0, 2, 3)
    sums = [(probabilities * (targets * counted)).sum(axes), (probabilities * counted).sum(axes)]
    overlap, guessed, size = team.total(torch.stack([*sums, (targets * counted).float().sum(axes)]))
    dice = (2 * overlap + _SMOOTH) / (guessed + size + _SMOOTH)
    occurs = size > 0
    # An output that does not occur has no Dice worth pulling at; cross entropy tells the network to keep it down.
    loss: Tensor = ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1) / team.size
    return loss
