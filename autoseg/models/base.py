"""The contract of all networks, so that planner, trainer and predictor treat them in the same way.

A model file holds one `SPEC` (a `ModelSpec`) and one function

    build(variant, in_channels, num_classes, input_size: (H, W) or None, **options) -> SegmentationNetwork

`SegmentationNetwork` does what all networks need: it pads or resizes the input to a size the network accepts, crops or
resizes the logits to the input's size, and returns the right type in training and evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.published_weights import PublishedWeights

Family = Literal["specialist", "generalist", "omnimodel"]
OwnLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One size of an architecture. `parameters` counts 3 input channels and 2 classes.

    any_size: True if this variant accepts any size, although the architecture has a `fixed_size`.
    """

    name: str
    parameters: int
    note: str = ""
    any_size: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The traits of an architecture that planner, trainer and reports read.

    variants: from small to large. default_variant: the one of the benchmark protocol.
    divisor: the network pads its input to multiples of this. fixed_size: it resizes its input to this square.
    own_loss: trains with a loss of its own instead of the plan's.
    batch_statistics: normalises over the batch, so it cannot train with a batch of one.
    mixed_precision: False if half precision is known to be unstable.
    channels_last_on_cpu: True if channels_last was measured to make a CPU training step at least 1.1 times faster.
    channels_last_on_cuda: False if contiguous tensors were measured to be faster on a GPU (networks with instance norm).
    no_onnx: why it cannot be exported to ONNX; empty if it can (tested for every model).
    warmup_epochs: epochs of linear warm-up of the learning rate.
    weights: published files, for each variant and part the preferred one first.
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
    own_loss: bool = False
    batch_statistics: bool = True
    mixed_precision: bool = True
    channels_last_on_cpu: bool = False
    channels_last_on_cuda: bool = True
    no_onnx: str = ""
    warmup_epochs: int = 0
    weights: tuple[PublishedWeights, ...] = ()
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

    def weights_for(self, variant: str, study: bool = False) -> tuple[PublishedWeights, ...]:
        """The published files for a variant. study: with those that only the first study used."""
        return tuple(one for one in self.weights if one.variant in ("", variant) and (study or not one.study))

    def size_inside(self, variant: str) -> int | None:
        """Side of the square to which the variant resizes its input; None if it works at any size."""
        return None if self.variant(variant).any_size else self.fixed_size


@dataclass(frozen=True)
class ModelOutput:
    """What a network returns in training mode.

    logits: (B, K, H, W) at the input's size.
    auxiliary: further logits (B, K, h, w) of any size with the weight of each in the loss; the main logits weigh 1.
    own_loss: the network's own loss, used instead of the plan's. Called with target (B, K, H, W) in {0, 1} and valid
    (B, 1, H, W) in {0, 1} (0 for the ignore label); returns a scalar.
    """

    logits: Tensor
    auxiliary: tuple[tuple[Tensor, float], ...] = ()
    own_loss: OwnLoss | None = None


class StateDictAdapter:
    """Maps official tensors to our parameters: each tensor is assigned, or dropped with a reason.

    If a tensor is neither (see `remaining`), the file does not fit the network.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.assigned: dict[str, Tensor] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.dropped: dict[str, str] = {}

    @property
    def remaining(self) -> tuple[str, ...]:
        """Official names not yet assigned or dropped, in the file's order."""
        used = {name for names in self.sources.values() for name in names}
        return tuple(name for name in self.tensors if name not in used and name not in self.dropped)

    def assign(self, ours: str, *official: str, transform: Callable[..., Tensor] | None = None) -> None:
        """Fill our parameter `ours` from one or more official tensors. transform: splits, joins or reshapes them."""
        tensors = [self.tensors[name] for name in official]
        self.assigned[ours] = transform(*tensors) if transform is not None else tensors[0]
        self.sources[ours] = official

    def drop(self, official: str, reason: str) -> None:
        """Leave out an official tensor, with the reason."""
        self.dropped[official] = reason


class SegmentationNetwork(nn.Module, ABC):
    """Base of all networks. Input (B, C, H, W) float; output in evaluation: logits (B, K, H, W), in training: `ModelOutput`.

    Subclasses implement `segment`. Height and width of its input are multiples of `divisor` and at least `min_side` (zero
    padding on the right and at the bottom), or exactly `fixed_size`. Its logits may have any size: `forward` resizes them.

    stem_weights: names of the weights whose second axis is the input channels. head_weights: names of weights and
    biases whose first axis is the classes. `load_published` adapts stem weights to other channels and leaves out head
    weights for other classes. unused_parameters: parameters that the published architecture has but never uses.

    Attribute names of modules are keys of checkpoints: a renamed attribute makes existing checkpoints unreadable.
    """

    divisor: int = 1
    min_side: int = 1
    fixed_size: int | None = None
    stem_weights: tuple[str, ...] = ()
    head_weights: tuple[str, ...] = ()
    unused_parameters: tuple[str, ...] = ()

    @abstractmethod
    def segment(self, x: Tensor) -> ModelOutput:
        """Logits for an input of a valid size. Auxiliary outputs are needed in training mode only."""

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Tensors of other libraries' files under the official names; names that are not known stay as they are."""
        return tensors

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Assign or drop each official tensor. This default is for networks with the official names."""
        ours = self.state_dict()
        for name in adapter.remaining:
            if name in ours:
                adapter.assign(name, name)

    def forward(self, x: Tensor) -> Tensor | ModelOutput:
        height, width = x.shape[-2:]
        resized = self._to_valid_size(x)
        output = self.segment(resized)
        logits = self._to_input_size(output.logits, resized.shape[-2:], (height, width))
        return replace(output, logits=logits) if self.training else logits

    def _to_valid_size(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.fixed_size is not None:
            size = (self.fixed_size, self.fixed_size)
            return x if (height, width) == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
        below, right = (self._padding(side) for side in (height, width))
        return F.pad(x, (0, right, 0, below)) if below or right else x

    def _padding(self, side: int) -> int:
        minimum = max(side, self.min_side)
        return minimum + -minimum % self.divisor - side

    def _to_input_size(self, logits: Tensor, resized: torch.Size, size: tuple[int, int]) -> Tensor:
        target = size if self.fixed_size is not None else tuple(resized)
        if tuple(logits.shape[-2:]) != target:
            logits = F.interpolate(logits, target, mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]
