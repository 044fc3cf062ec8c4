"""Published checkpoints into our networks: every official tensor is used, or named as dropped with the reason."""

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

# Where common training codes put the weights inside their checkpoint, and what parallel training puts before each name.
_WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "network_weights")
_PREFIXES = ("module.", "_orig_mod.")
# Counters that mean nothing to a network being fine-tuned.
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")


@dataclass(frozen=True)
class LoadReport:
    """loaded: official names that were used. dropped: official name -> reason. missing: our names that got nothing."""

    loaded: tuple[str, ...]
    dropped: Mapping[str, str]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.loaded)} tensors loaded, {len(self.dropped)} dropped, {len(self.missing)} left as initialised"


def load_published(network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> LoadReport:
    """Copy official tensors into `network`.

    A first layer for another number of channels is adapted: its weights are summed over the channels for gray images,
    spread evenly over any other number. A class head for another number of classes is dropped. Anything else that does
    not fit raises `SeveralProblems`, and the network is left as it was.
    """
    adapter = StateDictAdapter({name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTERS)})
    for name in tensors:
        if name.endswith(_COUNTERS):
            adapter.drop(name, "a counter, not a weight")
    network.load_official(adapter)
    own = network.state_dict()
    problems = [f"{name}: no such tensor is known" for name in adapter.left]
    fitting: dict[str, Tensor] = {}
    for name, tensor in adapter.given.items():
        if name not in own:
            problems.append(f"{' + '.join(adapter.sources[name])}: the network has no parameter {name}")
        elif tensor.shape == own[name].shape:
            fitting[name] = tensor
        elif name in network.stem_weights and tensor.ndim == own[name].ndim:
            fitting[name] = _spread_channels(tensor, own[name].shape[1])
        elif name in network.head_weights and tensor.shape[1:] == own[name].shape[1:]:
            for source in adapter.sources[name]:
                adapter.drop(source, f"a head for {tensor.shape[0]} classes, here are {own[name].shape[0]}")
        else:
            problems.append(f"{name}: the file has shape {tuple(tensor.shape)}, the network {tuple(own[name].shape)}")
    if not fitting:
        problems.insert(0, "not one tensor of the file belongs to this network")
    if problems:
        raise SeveralProblems(
            f"these weights do not fit {type(network).__name__}:", problems,
            "choose the model and variant the file was made for, or train with --pretrained none", shown=20,
        )
    network.load_state_dict({**own, **fitting})
    loaded = tuple(name for name in adapter.tensors if name not in adapter.dropped)
    learned = {name for name, _ in network.named_parameters()}
    missing = tuple(name for name in own if name in learned and name not in fitting)
    return LoadReport(loaded, adapter.dropped, missing)


def _spread_channels(weight: Tensor, channels: int) -> Tensor:
    """A first layer's weight (O, I, ...) for another number of input channels, keeping the size of its response."""
    total = weight.sum(dim=1, keepdim=True)
    return total.expand(-1, channels, *weight.shape[2:]).clone() / channels


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file (.safetensors, or anything torch.save wrote), without executing anything in it.

    Raises AutosegError where the file is missing, is no checkpoint, or holds objects that only code could rebuild.
    """
    if not path.is_file():
        raise AutosegError(f"there is no weights file {path}", "check the path given to --pretrained")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AutosegError(
            f"{path} holds more than tensors and was not opened, since opening it could run code",
            "convert it to .safetensors with its authors' code on a machine you can afford to lose",
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise AutosegError(f"{path} is not a readable checkpoint: {error}", "fetch the file again") from error
    except Exception as error:
        # safetensors raises its own exception type, which it does not export in a stable place.
        if type(error).__module__.startswith("safetensors"):
            raise AutosegError(f"{path} is not a readable safetensors file: {error}", "fetch it again") from error
        raise
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise AutosegError(f"{path} holds a {type(content).__name__}, not named tensors", "give a state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise AutosegError(f"{path} holds no tensors", "give a checkpoint with a state dict")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
