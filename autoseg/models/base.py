"""What every network promises, so that planner, trainer and predictor never ask which one they have.

A model file holds one `SPEC` (a `ModelSpec`) and one function

    build(variant, in_channels, num_classes, input_size: (H, W) or None, **options) -> SegmentationNetwork

`SegmentationNetwork` does what all of them need once: bring the input to a size the network accepts, bring the logits
back to the input's size, and return the right kind of result for training and evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Family = Literal["specialist", "generalist", "omnimodel"]
OwnLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One size of an architecture. `parameters` counts 3 input channels and 2 classes.

    any_size: does not resize to the architecture's `fixed_size` inside, as its other variants do.
    """

    name: str
    parameters: int
    note: str = ""
    any_size: bool = False


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A checkpoint file others published, found by `--pretrained auto` under `file` in the weights folder.

    `variant` is the variant it fits ("" fits all), `part` what it fills of a network whose parts have files of their own;
    `package` names an installable package that carries it, `url` where
    it can be fetched by hand, `licence` what its authors allow. Nothing is ever downloaded without being asked for.
    """

    file: str
    trained_on: str
    variant: str = ""
    part: str = ""
    package: str = ""
    url: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The traits of an architecture that planner, trainer and reports read.

    variants: from small to large. default_variant: the one the benchmark protocol uses.
    divisor: the network itself works on multiples of this (it pads inside). fixed_size: it resizes to this square inside.
    batch_statistics: normalises over the batch, so a batch of one cannot be trained.
    mixed_precision: False where half precision is known to be unstable.
    channels_last_on_cpu: channels_last tensors were measured to make a training step on a processor 1.1 times faster or more.
    no_onnx: why it cannot be exported to ONNX; empty where it can (tested for every model).
    warmup_epochs: linear warm-up the architecture wants in training.
    input_mean, input_std: normalisation (of values in 0..1) the published weights expect.
    cam_layer: module path of the default layer for Grad-CAM.
    """

    name: str
    title: str
    family: Family
    citation: str
    variants: tuple[Variant, ...]
    default_variant: str
    divisor: int = 1
    min_size: int = 32
    fixed_size: int | None = None
    deep_supervision: bool = False
    batch_statistics: bool = True
    mixed_precision: bool = True
    channels_last_on_cpu: bool = False
    no_onnx: str = ""
    warmup_epochs: int = 0
    weights: tuple[PublishedWeights, ...] = ()
    input_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    input_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    cam_layer: str = ""

    def __post_init__(self) -> None:
        names = [v.name for v in self.variants]
        if self.default_variant not in names:
            raise ValueError(f"{self.name}: default variant {self.default_variant!r} is not one of {names}")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: a variant is listed twice in {names}")

    def variant(self, name: str) -> Variant:
        """The variant of that name. Raises KeyError if there is none."""
        for candidate in self.variants:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def size_inside(self, variant: str) -> int | None:
        """The side of the square a variant resizes to inside, None where it works at any size."""
        return None if self.variant(variant).any_size else self.fixed_size


@dataclass(frozen=True)
class ModelOutput:
    """What a network returns in training mode.

    logits: (B, K, H, W) at the input's size.
    auxiliary: further logits (B, K, h, w) of any size with the weight of each in the loss; the main logits weigh 1.
    own_loss: for a network whose loss is its own: called with target (B, K, H, W) in {0, 1} and valid (B, 1, H, W) in
    {0, 1} (0 where the ignore label is), returns a scalar. It then replaces the plan's loss.
    """

    logits: Tensor
    auxiliary: tuple[tuple[Tensor, float], ...] = ()
    own_loss: OwnLoss | None = None


class StateDictAdapter:
    """Official tensors on their way into a network: each is given to a parameter of ours or dropped with a reason.

    What is neither given nor dropped stays in `left` and makes the file a foreign one.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.given: dict[str, Tensor] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.dropped: dict[str, str] = {}

    @property
    def left(self) -> tuple[str, ...]:
        """Official names not yet given or dropped, in the file's order."""
        used = {name for names in self.sources.values() for name in names}
        return tuple(name for name in self.tensors if name not in used and name not in self.dropped)

    def give(self, ours: str, *official: str, by: Callable[..., Tensor] | None = None) -> None:
        """Fill our parameter `ours` from one or more official tensors; `by` turns them into ours (cut, join, reshape)."""
        tensors = [self.tensors[name] for name in official]
        self.given[ours] = by(*tensors) if by is not None else tensors[0]
        self.sources[ours] = official

    def drop(self, official: str, reason: str) -> None:
        """Leave an official tensor out, and say why."""
        self.dropped[official] = reason


class SegmentationNetwork(nn.Module, ABC):
    """Base of all networks: (B, C, H, W) float in; evaluation: logits (B, K, H, W); training: `ModelOutput`.

    Subclasses write `segment`, which sees an input whose sides are multiples of `divisor` and at least `min_side` (zero
    padding to the right and below) or exactly `fixed_size`, and may answer at any size: logits are brought back here.

    stem_weights: names of the weights whose second axis is the input channels. head_weights: names of weights and
    biases whose first axis is the classes. `load_published` adapts the former and leaves out the latter where they differ.
    unused_parameters: names of parameters the published architecture carries and never uses.
    """

    divisor: int = 1
    min_side: int = 1
    fixed_size: int | None = None
    stem_weights: tuple[str, ...] = ()
    head_weights: tuple[str, ...] = ()
    unused_parameters: tuple[str, ...] = ()

    @abstractmethod
    def segment(self, x: Tensor) -> ModelOutput:
        """Logits for an input of an admissible size; in evaluation mode auxiliary outputs may be left out."""

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Give or drop each official tensor. As written here: where our names are the official ones."""
        ours = self.state_dict()
        for name in adapter.left:
            if name in ours:
                adapter.give(name, name)

    def forward(self, x: Tensor) -> Tensor | ModelOutput:
        height, width = x.shape[-2:]
        inside = self._admissible(x)
        output = self.segment(inside)
        logits = self._back(output.logits, inside.shape[-2:], (height, width))
        return replace(output, logits=logits) if self.training else logits

    def _admissible(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.fixed_size is not None:
            size = (self.fixed_size, self.fixed_size)
            return x if (height, width) == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
        below, right = (self._padding(side) for side in (height, width))
        return F.pad(x, (0, right, 0, below)) if below or right else x

    def _padding(self, side: int) -> int:
        least = max(side, self.min_side)
        return least + -least % self.divisor - side

    def _back(self, logits: Tensor, inside: torch.Size, size: tuple[int, int]) -> Tensor:
        target = size if self.fixed_size is not None else tuple(inside)
        if tuple(logits.shape[-2:]) != target:
            logits = F.interpolate(logits, target, mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]
