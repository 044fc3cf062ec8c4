"""Losses on logits, computed in float32 whatever the network's precision: cross entropy or its sigmoid form, with soft Dice.

A loss is a function `loss(logits, target) -> scalar tensor`, looked up by name (`LOSSES`, entry points "autoseg.losses").
logits: (B, K, H, W) float32, one map per output in the order of the labels. target: a `Target`, with the labels (B, H, W),
the one-hot maps (B, K, H, W) and the mask of valid pixels. The loss is a mean over pixels or images, so that it does not grow
with the batch; ignored pixels do not change it. It is called for the network's logits, and for auxiliary logits of any size.
Optional attributes: `activation`, "softmax" (classes exclude each other; regions are then refused) or "sigmoid" (one sigmoid
per output); without it both must work. `sums_over_processes`: True if it sums over `target.team` itself and returns this
process's part; otherwise the mean over the processes' images is taken.

Soft Dice and clDice are computed over the batch (batch Dice), for the foreground outputs that occur in it, as in nnU-Net
(Isensee et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.inference.activation import output_activation, probabilities
from autoseg.models.base import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import LOSSES
from autoseg.training.cldice_loss import soft_cldice_loss
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext

_SMOOTH = 1e-5
_SIGMOID_FORM = {"ce": "bce", "dice_ce": "dice_bce"}
LossFunction = Callable[[Tensor, "Target"], Tensor]


@dataclass(frozen=True, eq=False)
class Target:
    """Reference of a batch. labels: (B, H, W) label values, any integer type. team: see `DistributedContext`."""

    labels: Tensor
    scheme: LabelScheme
    team: DistributedContext = SINGLE_PROCESS

    @cached_property
    def one_hot(self) -> Tensor:
        """(B, K, H, W) float32, 0 or 1: the reference of each output. 0 at ignored pixels."""
        return torch.stack([_is_member(self.labels, members) for members in self.scheme.members], dim=1).float()

    @cached_property
    def valid(self) -> Tensor:
        """(B, H, W) bool: False at ignored pixels."""
        if self.scheme.ignore is None:
            return torch.ones_like(self.labels, dtype=torch.bool)
        return self.labels != self.scheme.ignore

    @property
    def foreground(self) -> slice:
        """The foreground outputs, as a slice of the second axis."""
        return slice(0 if self.scheme.regions else 1, None)

    def resized(self, size: torch.Size) -> Target:
        """The target at another size (h, w), see `resize_nearest`."""
        return self if self.labels.shape[-2:] == size else Target(resize_nearest(self.labels, size), self.scheme, self.team)


class Loss:
    """The loss of a plan, for the output of a network in training mode.

    name: of a loss in `LOSSES`. Raises AutosegError for an unknown name, and for a softmax loss ("ce", "dice_ce") if the
    labels are regions, which overlap. cldice: weight of soft clDice, for full-size logits only: thin structures are lost at
    the size of auxiliary logits. auxiliary: False leaves auxiliary logits out. team: each process has a shard
    of the batch and returns its part of the loss. activation: see `output_activation`.
    """

    def __init__(
        self,
        name: str,
        scheme: LabelScheme,
        cldice: float = 0.0,
        team: DistributedContext = SINGLE_PROCESS,
        *,
        auxiliary: bool = True,
    ) -> None:
        self._loss = LOSSES.get(name)
        activation = getattr(self._loss, "activation", "")
        if scheme.regions and activation == "softmax":
            raise AutosegError(
                f"the loss {name} is for classes that exclude each other, but the labels {', '.join(scheme.names)} are regions",
                f"--set training.loss={_SIGMOID_FORM.get(name, 'dice_bce')}",
            )
        self._name = name
        self._scheme = scheme
        self._cldice = cldice
        self._team = team
        self._auxiliary = auxiliary
        self.activation = output_activation(activation, scheme)

    def __call__(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """Scalar loss. labels: (B, H, W) label values, any integer type.

        Auxiliary logits are compared with the labels at their size, and weighted. A network's own loss replaces the plan's.
        """
        target = Target(labels, self._scheme, self._team)
        with torch.autocast(output.logits.device.type, enabled=False):
            if output.own_loss is not None:
                own = output.own_loss(target.one_hot, target.valid.unsqueeze(1).float())
                return own if self._team.size == 1 else own * self._shard_fraction(labels)
            total = self._plan_loss(output.logits.float(), target)
            if self._cldice:
                total = total + self._cldice * self._cldice_term(output.logits.float(), target)
            for logits, weight in output.auxiliary if self._auxiliary else ():
                total = total + weight * self._plan_loss(logits.float(), target.resized(logits.shape[-2:]))
            return total

    def _plan_loss(self, logits: Tensor, target: Target) -> Tensor:
        loss: Tensor = self._loss(logits, target)
        if loss.numel() != 1:
            raise AutosegError(
                f"the loss {self._name} of {LOSSES.source(self._name)} returns a tensor of shape {tuple(loss.shape)}",
                "return a scalar: the mean over the valid pixels",
            )
        if self._team.size == 1 or getattr(self._loss, "sums_over_processes", False):
            return loss.squeeze()
        return loss.squeeze() * self._shard_fraction(target.labels)

    def _cldice_term(self, logits: Tensor, target: Target) -> Tensor:
        maps = probabilities(logits, self.activation, self._scheme)[:, target.foreground]
        return soft_cldice_loss(maps, target.one_hot[:, target.foreground], target.valid, self._team)

    def _shard_fraction(self, labels: Tensor) -> Tensor:
        """This process's fraction of the images of the batch."""
        images = torch.tensor([float(len(labels))], device=labels.device)
        return (images / self._team.all_reduce(images)).squeeze()


def _attributes(activation: str) -> Callable[[LossFunction], LossFunction]:
    """Set the attributes of autoseg's own losses, see the module's docstring."""

    def decorate(loss: LossFunction) -> LossFunction:
        loss.activation, loss.sums_over_processes = activation, True  # type: ignore[attr-defined]
        return loss

    return decorate


@_attributes("softmax")
def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Cross entropy of classes that exclude each other."""
    return _cross_entropy(logits, target)[0]


@_attributes("softmax")
def dice_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Cross entropy plus soft Dice."""
    loss, log_probabilities = _cross_entropy(logits, target)
    labels, members = target.labels, target.scheme.members
    foreground = torch.stack([labels == values[0] for values in members[1:]], dim=1)
    return loss + _soft_dice(log_probabilities[:, 1:].exp(), foreground, target)


@_attributes("sigmoid")
def binary_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Binary cross entropy of outputs with a sigmoid each. For two exclusive classes it is the same as cross entropy."""
    return _binary_cross_entropy(logits, target) if _sigmoid_per_output(target) else cross_entropy(logits, target)


@_attributes("sigmoid")
def dice_binary_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Binary cross entropy plus soft Dice."""
    if not _sigmoid_per_output(target):
        return dice_cross_entropy(logits, target)
    foreground = target.foreground
    return _binary_cross_entropy(logits, target) + _soft_dice(
        logits[:, foreground].sigmoid(), target.one_hot[:, foreground], target
    )


def _sigmoid_per_output(target: Target) -> bool:
    return output_activation("sigmoid", target.scheme) == "sigmoid"


def _cross_entropy(logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Cross entropy (scalar) and log-probabilities (B, K, H, W)."""
    ignore = -100 if target.scheme.ignore is None else target.scheme.ignore
    log_probabilities = F.log_softmax(logits, dim=1)
    labels = target.labels.long()
    if torch.are_deterministic_algorithms_enabled():
        # nll_loss has no deterministic form on CUDA.
        chosen = log_probabilities.gather(1, labels.where(target.valid, 0).unsqueeze(1)).squeeze(1)
        entropy = -(chosen * target.valid).sum()
    else:
        entropy = F.nll_loss(log_probabilities, labels, ignore_index=ignore, reduction="sum")
    return entropy / target.team.all_reduce(target.valid.sum()).clamp(min=1), log_probabilities


def _binary_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(logits, target.one_hot, reduction="none") * target.valid.unsqueeze(1)
    return losses.sum() / (target.team.all_reduce(target.valid.sum()).clamp(min=1) * target.scheme.outputs)


def resize_nearest(labels: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W) -> (B, h, w): the label at the centre of each new pixel."""
    if labels.shape[-2:] == size:
        return labels
    rows, columns = (
        ((torch.arange(new, device=labels.device) + 0.5) * (old / new)).long()
        for new, old in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows][:, :, columns]


def _is_member(labels: Tensor, members: tuple[int, ...]) -> Tensor:
    mask = labels == members[0]
    for value in members[1:]:
        mask = mask | (labels == value)
    return mask


def _soft_dice(probabilities: Tensor, targets: Tensor, target: Target) -> Tensor:
    """1 - soft Dice, averaged over the outputs that occur in the batch. probabilities, targets: (B, K, H, W)."""
    valid, team = target.valid.unsqueeze(1), target.team
    axes = (0, 2, 3)
    sums = [(probabilities * (targets * valid)).sum(axes), (probabilities * valid).sum(axes)]
    overlap, predicted, size = team.all_reduce(torch.stack([*sums, (targets * valid).float().sum(axes)]))
    dice = (2 * overlap + _SMOOTH) / (predicted + size + _SMOOTH)
    occurs = size > 0
    # Outputs that do not occur have no useful Dice. Cross entropy still penalises their false positives.
    loss: Tensor = ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1) / team.size
    return loss
