"""The contract of all networks, so that planner, trainer and predictor treat them in the same way.

A model file holds one `SPEC` (a `ModelSpec`) and one function

    build(variant, in_channels, num_classes, input_size: (H, W) or None, **options) -> SegmentationNetwork

`SegmentationNetwork` does what all networks need: it pads or resizes the input to a size the network accepts, crops or
resizes the logits to the input's size, and returns the right type in training and evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.models.published_weights import PublishedWeights
from autoseg.support.errors import AutosegError

Family = Literal["specialist", "generalist", "foundation", "omnimodel"]
OwnLoss = Callable[[Tensor, Tensor], Tensor]
# In front of the names of an encoder's parameters.
_ENCODER = "encoder."


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
class Transfer:
    """How a network is trained whose encoder starts from published weights. The defaults mean: like any other network.

    encoder_rate: factor of the encoder's learning rate, 0 for a frozen encoder. layer_decay: factor from each of the encoder's
    layers to the one before it. weight_decay: None for that of the plan. warmup_share: fraction of the steps in which the
    learning rate rises. drop_path: largest rate of stochastic depth in the encoder. source: where the numbers are from.
    """

    encoder_rate: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float | None = None
    warmup_share: float = 0.0
    drop_path: float = 0.0
    source: str = ""


LIKE_ANY_OTHER = Transfer()


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The traits of an architecture that planner, trainer and reports read.

    variants: from small to large. default_variant: the one of the benchmark protocol.
    divisor: the network pads its input to multiples of this. fixed_size: it resizes its input to this square.
    full_resolution: True if its decoder ends at the size of the input, so that thin structures need no enlarged patches.
    own_loss: trains with a loss of its own instead of the plan's.
    batch_statistics: normalises over the batch, so it cannot train with a batch of one.
    mixed_precision: False if half precision is known to be unstable.
    channels_last_on_cpu: True if channels_last was measured to make CPU training steps and predictions faster.
    channels_last_on_cuda: False if contiguous tensors were measured to be faster on a GPU (networks with instance norm).
    no_onnx: why it cannot be exported to ONNX; empty if it can (tested for every model).
    warmup_epochs: epochs of linear warm-up of the learning rate. high_rate: True if higher rates than usual were measured to be
    better (documentation/race.md).
    weights: published files, for each variant and part the preferred one first.
    transfer: how to train it from published weights. cam_layer: module path of the default layer for Grad-CAM.
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
    full_resolution: bool = False
    own_loss: bool = False
    batch_statistics: bool = True
    mixed_precision: bool = True
    channels_last_on_cpu: bool = False
    channels_last_on_cuda: bool = True
    no_onnx: str = ""
    warmup_epochs: int = 0
    high_rate: bool = False
    weights: tuple[PublishedWeights, ...] = ()
    transfer: Transfer = LIKE_ANY_OTHER
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
    padding on the right and at the bottom), or exactly `fixed_size` (the side of a square, or height and width). Its logits may
    have any size: `forward` resizes them.

    stem_weights: names of the weights whose second axis is the input channels. head_weights: names of weights and
    biases whose first axis is the classes. `load_published` adapts stem weights to other channels and leaves out head
    weights for other classes. unused_parameters: parameters that the published architecture has but never uses. antialias:
    average areas where the input is shrunk to `fixed_size`.

    Attribute names of modules are keys of checkpoints: a renamed attribute makes existing checkpoints unreadable.
    """

    divisor: int = 1
    min_side: int = 1
    fixed_size: int | tuple[int, int] | None = None
    antialias: bool = False
    stem_weights: tuple[str, ...] = ()
    head_weights: tuple[str, ...] = ()
    unused_parameters: tuple[str, ...] = ()

    _frozen: bool = False

    @abstractmethod
    def segment(self, x: Tensor) -> ModelOutput:
        """Logits for an input of a valid size. Auxiliary outputs are needed in training mode only."""

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps for an input of a valid size. Raises AutosegError for networks that are not split in two."""
        raise self._not_split()

    def decode(self, maps: Sequence[Tensor], x: Tensor) -> ModelOutput:
        """As `segment`, from the maps of `encode` and its input."""
        raise self._not_split()

    def _not_split(self) -> AutosegError:
        problem = f"{type(self).__name__} is not split into encoder and decoder, so it has no features to cache"
        return AutosegError(problem, "leave cached_views at 0; dinov2 and all other networks on encoders of timm have them")

    def encoder_maps(self, x: Tensor) -> list[Tensor]:
        """What the encoder gives for an input of any size, for `forward`."""
        return self.encode(self._to_valid_size(x))

    def encoder_parameters(self) -> list[str]:
        """Names of the parameters of the module `encoder`; empty for networks without one of that name."""
        return [name for name, _ in self.named_parameters() if name.startswith(_ENCODER)]

    def encoder_layers(self) -> Mapping[str, int]:
        """Encoder parameter -> number of its layer, counted from the image; empty where layers are not told apart."""
        return {}

    def freeze_encoder(self) -> None:
        """From now on the encoder does not learn: no gradients, and in training mode too the statistics of its norms stay and
        nothing is dropped. Raises AutosegError for a network without a module `encoder`."""
        if not self.encoder_parameters():
            raise AutosegError(
                f"{type(self).__name__} has no encoder of its own that could be frozen", "leave encoder_rate at 1"
            )
        self._frozen = True
        for name, parameter in self.named_parameters():
            if name.startswith(_ENCODER):
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SegmentationNetwork:
        super().train(mode)
        if self._frozen:
            self.get_submodule(_ENCODER[:-1]).eval()
        return self

    def to_official(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Tensors of other libraries' files under the official names; names that are not known stay as they are."""
        return tensors

    def load_official(self, adapter: StateDictAdapter) -> None:
        """Assign or drop each official tensor. This default is for networks with the official names."""
        ours = self.state_dict()
        for name in adapter.remaining:
            if name in ours:
                adapter.assign(name, name)

    def forward(self, x: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor | ModelOutput:
        """maps: those of `encoder_maps` for this input, which are then not computed."""
        height, width = x.shape[-2:]
        resized = self._to_valid_size(x)
        output = self.segment(resized) if maps is None else self.decode(maps, resized)
        logits = self._to_input_size(output.logits, resized.shape[-2:], (height, width))
        return replace(output, logits=logits) if self.training else logits

    def _to_valid_size(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.fixed_size is not None:
            size = self.fixed_size if isinstance(self.fixed_size, tuple) else (self.fixed_size, self.fixed_size)
            if (height, width) == size:
                return x
            return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=self.antialias)
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
