"""Loads published checkpoints: every official tensor is used, or dropped with a reason."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from autoseg.models.base import SegmentationNetwork, StateDictAdapter
from autoseg.support.errors import AutosegError, SeveralProblems

# Keys under which common training code stores the weights, and prefixes of parallel and compiled models.
_WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "network_weights")
_PREFIXES = ("module.", "_orig_mod.")
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
    """Copy official tensors into `network`.

    A first layer for another number of channels is adapted: the sum of its weights over the channels, divided evenly among
    the new channels. A class head for another number of classes is dropped. Raises `SeveralProblems` if anything else does
    not fit; the network is then unchanged.
    """
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
        elif name in network.stem_weights and tensor.ndim == own[name].ndim:
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
    network.load_state_dict({**own, **fitting})
    loaded = tuple(name for name in adapter.tensors if name not in adapter.dropped)
    trainable = {name for name, _ in network.named_parameters()}
    missing = tuple(name for name in own if name in trainable and name not in fitting)
    return LoadReport(loaded, adapter.dropped, missing)


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """The first layer's weight (O, I, ...) for another number of input channels, with the same scale of its output."""
    total = weight.sum(dim=1, keepdim=True)
    return total.expand(-1, channels, *weight.shape[2:]).clone() / channels


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file (.safetensors or written by torch.save). No code in the file is executed.

    Raises AutosegError if the file is missing, is not a checkpoint, or contains objects that need code to be loaded.
    """
    if not path.is_file():
        raise AutosegError(f"there is no weights file {path}", "check the path given to --pretrained")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AutosegError(
            f"{path} contains more than tensors and was not opened, because opening it could run code",
            "convert it to .safetensors with its authors' code, on a machine without valuable data",
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise AutosegError(f"{path} is not a readable checkpoint: {error}", "download the file again") from error
    except Exception as error:
        # The exception type of safetensors has no stable import path.
        if type(error).__module__.startswith("safetensors"):
            raise AutosegError(f"{path} is not a readable safetensors file: {error}", "download it again") from error
        raise
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise AutosegError(f"{path} contains a {type(content).__name__}, not named tensors", "give a state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise AutosegError(f"{path} contains no tensors", "give a checkpoint with a state dict")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
