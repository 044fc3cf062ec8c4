"""Reads checkpoint files of any publisher: named tensors in float32, out of whatever is wrapped around them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autoseg.support.errors import AutosegError
from autoseg.weights.inert import load_inert

# Keys under which training code stores the weights. Averaged weights come first: they are what the authors evaluated.
_WRAPPERS = (
    "model_ema", "state_dict_ema", "params_ema", "state_dict", "model", "net", "model_state_dict", "network_weights", "params",
)  # fmt: skip
# Keys of a part of a network, alone or with other parts.
_PARTS = ("backbone", "encoder")
# Prefixes of parallel and compiled models.
_PREFIXES = ("module.", "_orig_mod.")
_HEADER_BYTES = 8
# First bytes of what is often stored under the name of a checkpoint.
_NO_WEIGHTS = {
    b"<!doctype": "a web page: the address leads to a page about the file",
    b"<html": "a web page: the address leads to a page about the file",
    b"version https://git-lfs": "a pointer of Git LFS, without the file it points to",
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint file (safetensors or torch.save, recognised by content). No code is executed.

    Floating-point tensors are float32. Raises AutosegError if the file is missing or no checkpoint, or calls functions.
    """
    if not path.is_file():
        raise AutosegError(f"there is no weights file {path}", "check the path given to --pretrained")
    start = _first_bytes(path)
    for mark, what in _NO_WEIGHTS.items():
        if start.lstrip().lower().startswith(mark):
            raise AutosegError(f"{path} is {what}", "download the file itself, or run autoseg_weights fetch")
    tensors = _read_safetensors(path) if _is_safetensors(start, path) else _read_pickle(path)
    return {name: _in_float32(name, tensor, path) for name, tensor in tensors.items()}


def _in_float32(name: str, tensor: Tensor, path: Path) -> Tensor:
    if tensor.layout is not torch.strided:
        raise AutosegError(f"{path}: {name} is a sparse tensor, which no network here has", "give a file with dense tensors")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise AutosegError(f"{path}: {name} claims more values than the file holds", "do not use this file")
    return tensor.float() if tensor.is_floating_point() else tensor


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise AutosegError(f"{path} cannot be read: {error}", "check the file and its permissions") from error


def _is_safetensors(start: bytes, path: Path) -> bool:
    """Whether the file begins with the length of a JSON header that fits into it, and with that header."""
    length = int.from_bytes(start[:_HEADER_BYTES], "little")
    return start[_HEADER_BYTES : _HEADER_BYTES + 1] == b"{" and length <= path.stat().st_size - _HEADER_BYTES


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return _without_prefixes(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise AutosegError(f"{path} is not a readable safetensors file: {error}", "download it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = load_inert(path)
        tensors = _unwrap(content) if isinstance(content, Mapping) else None
    except pickle.UnpicklingError as error:
        raise AutosegError(
            f"{path} contains more than tensors and was not opened, because opening it could run code ({error})",
            "convert it to .safetensors with its authors' code, on a machine without valuable data",
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise AutosegError(f"{path} is not a readable checkpoint: {error}", "download the file again") from error
    if tensors is None:
        raise AutosegError(f"{path} contains a {type(content).__name__}, not named tensors", "give a state dict")
    if not tensors:
        raise AutosegError(f"{path} contains no named tensors", "give a file with a state dict, not one with a whole model")
    return _without_prefixes(tensors)


def _unwrap(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors inside any number of wrappers. The tensors of several parts keep the part's name in front of theirs."""
    for key in _WRAPPERS:
        if _holds_tensors(content.get(key)):
            return _unwrap(content[key])
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    parts = {str(key): _tensors_of(value) for key, value in content.items() if key in _PARTS or not tensors}
    parts = {key: of_part for key, of_part in parts.items() if of_part}
    if not any(key in _PARTS for key in parts):
        return tensors
    if len(parts) == 1 and not tensors:
        return next(iter(parts.values()))
    return tensors | {f"{key}.{name}": tensor for key, of_part in parts.items() for name, tensor in of_part.items()}


def _tensors_of(value: Any) -> dict[str, Tensor]:
    return _unwrap(value) if _holds_tensors(value) else {}


def _holds_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    inside = (value[key] for key in (*_WRAPPERS, *_PARTS) if key in value)
    return any(isinstance(one, Tensor) for one in value.values()) or any(_holds_tensors(one) for one in inside)


def _without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return dict(tensors)
