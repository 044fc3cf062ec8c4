"""Loads published checkpoints: every official tensor is used, or dropped with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from autoseg.models.base import SegmentationNetwork, StateDictAdapter
from autoseg.support.errors import SeveralProblems

# Counters: no weights.
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")


@dataclass(frozen=True)
class LoadReport:
    """loaded: official names that were used. dropped: official name -> reason. missing: our parameters that were not loaded."""

    loaded: tuple[str, ...]
    dropped: Mapping[str, str]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.loaded)} tensors loaded, {len(self.dropped)} dropped, {len(self.missing)} left as initialised"


def load_published(network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> LoadReport:
    """Copy official tensors, or those of another library that `network` knows the names of, into `network`.

    A first layer for another number of channels is adapted: the sum of its weights over the channels, divided evenly among
    the new channels. A class head for another number of classes is dropped. Raises `SeveralProblems` if anything else does
    not fit; the network is then unchanged.
    """
    fitting, report = match_published(network, tensors)
    network.load_state_dict({**network.state_dict(), **fitting})
    return report


def match_published(network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LoadReport]:
    """What `load_published` would copy, by our names, without changing the network, which may be on the meta device."""
    tensors = network.to_official(tensors)
    adapter = StateDictAdapter({name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTERS)})
    for name in tensors:
        if name.endswith(_COUNTERS):
            adapter.drop(name, "a counter, not a weight")
    network.load_official(adapter)
    own = network.state_dict()
    problems = [f"{name}: unknown tensor" for name in adapter.remaining]
    fitting: dict[str, Tensor] = {}
    for name, tensor in adapter.assigned.items():
        if name not in own:
            problems.append(f"{' + '.join(adapter.sources[name])}: the network has no parameter {name}")
        elif tensor.shape == own[name].shape:
            fitting[name] = tensor
        elif name in network.stem_weights and _without_inputs(tensor) == _without_inputs(own[name]):
            fitting[name] = _adapt_channels(tensor, own[name].shape[1])
        elif name in network.head_weights and tensor.shape[1:] == own[name].shape[1:]:
            for source in adapter.sources[name]:
                adapter.drop(source, f"a head for {tensor.shape[0]} classes; the network has {own[name].shape[0]}")
        else:
            problems.append(f"{name}: the file has shape {tuple(tensor.shape)}, the network {tuple(own[name].shape)}")
    if not fitting:
        problems.insert(0, "no tensor of the file belongs to this network")
    if problems:
        raise SeveralProblems(
            f"these weights do not fit {type(network).__name__}:", problems,
            "choose the model and variant of the file, or train with --pretrained none", shown=20,
        )
    loaded = tuple(name for name in adapter.tensors if name not in adapter.dropped)
    trainable = {name for name, _ in network.named_parameters()}
    missing = tuple(name for name in own if name in trainable and name not in fitting)
    return fitting, LoadReport(loaded, adapter.dropped, missing)


def _without_inputs(weight: Tensor) -> tuple[int, ...]:
    """The shape without the second axis."""
    return (*weight.shape[:1], *weight.shape[2:])


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """The first layer's weight (O, I, ...) for another number of input channels, with the same scale of its output."""
    total = weight.sum(dim=1, keepdim=True)
    return total.expand(-1, channels, *weight.shape[2:]).clone() / channels
