"""A model that nnU-Net v2 has trained (configuration 2d), from its results folder: plans, network, weights. Executes nothing.

    <folder>/plans.json, dataset.json            as nnU-Net writes them
    <folder>/fold_0/checkpoint_final.pth, ...

nnU-Net finds classes by their names in plans.json and unpickles checkpoints; here only names of a list are accepted, and only
tensors and plain values are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file, hash_text, read_artefact

_CHECKPOINT = "checkpoint_final.pth"
_FOLD = re.compile(r"fold_(\d+|all)")
_NETWORKS = {"PlainConvUNet": PlainConvUNet, "ResidualEncoderUNet": ResidualEncoderUNet}
_LAYERS = {
    one.__name__: one
    for one in (nn.Conv2d, nn.InstanceNorm2d, nn.BatchNorm2d, nn.LeakyReLU, nn.ReLU, nn.Dropout2d, nn.Dropout)
}
NORMALISATIONS = (
    "ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization",
)  # fmt: skip
_RESAMPLING = "resample_data_or_seg_to_shape"
_REMEDY = "give the results folder of a 2d model of nnU-Net v2, with plans.json, dataset.json and fold_0"
# Plain values in a checkpoint besides tensors: numbers of NumPy in its log.
_SAFE: list[Any] = [
    np.dtype, np.ndarray, *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NNUNetConfiguration:
    """What prediction needs of plans.json. patch, spacing: (row, column). transpose: the two image axes are swapped.

    normalisations: of each channel; masked: whether only pixels inside the non-zero region count; intensities: of each channel,
    for CT. order, probability_order: of the splines that resample images and logits.
    """

    patch: tuple[int, int]
    spacing: tuple[float, float]
    transpose: bool
    normalisations: tuple[str, ...]
    masked: tuple[bool, ...]
    intensities: tuple[Mapping[str, float], ...]
    order: int
    probability_order: int
    network: str
    network_arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NNUNetModel:
    """mirror: axes of the image that may be mirrored. weights: of each fold. identities: fold -> hash of its file and plans."""

    name: str
    spec: DatasetSpec
    configuration: NNUNetConfiguration
    network: nn.Module
    weights: tuple[Mapping[str, torch.Tensor], ...]
    folds: tuple[str, ...]
    identities: dict[str, str]
    mirror: tuple[int, ...]


def read_model(folder: Path, folds: Sequence[int] | None = None) -> NNUNetModel:
    """The model in nnU-Net's results folder. folds: only these (default: all that are there).

    Raises AutosegError for what is no 2d model of nnU-Net v2, for classes that are not known here, and for damaged files.
    """
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise AutosegError(f"{folder} has no {name}", _REMEDY)
    plans = _json(folder / "plans.json")
    spec = read_artefact(folder / "dataset.json", DatasetSpec)
    found = {match[1]: path for path in sorted(folder.glob(f"fold_*/{_CHECKPOINT}"))
             if (match := _FOLD.fullmatch(path.parent.name))}  # fmt: skip
    chosen = {name: path for name, path in found.items() if folds is None or (name.isdigit() and int(name) in folds)}
    if not chosen:
        raise AutosegError(f"{folder} has no {_CHECKPOINT} in {'those folds' if found else 'fold_0, fold_1, ...'}", _REMEDY)
    checkpoints = [_checkpoint(path) for path in chosen.values()]
    kind = checkpoints[0]["init_args"]["configuration"]
    configuration = _configuration(plans, kind, len(spec.channel_names))
    network = build_network(configuration, len(spec.channel_names), spec.label_scheme().outputs)
    for path, checkpoint in zip(chosen.values(), checkpoints, strict=True):
        _check_fit(path, checkpoint, network)
    shown = hash_file(folder / "plans.json")
    return NNUNetModel(
        name=str(plans.get("dataset_name") or folder.parent.name), spec=spec, configuration=configuration, network=network,
        weights=tuple(checkpoint["network_weights"] for checkpoint in checkpoints), folds=tuple(chosen),
        identities={f"nnunet/fold_{name}": hash_text(shown, hash_file(path)) for name, path in chosen.items()},
        mirror=tuple(checkpoints[0].get("inference_allowed_mirroring_axes") or ()),
    )  # fmt: skip


def build_network(configuration: NNUNetConfiguration, channels: int, outputs: int) -> nn.Module:
    """The network without weights, in evaluation mode. Raises AutosegError if its arguments do not fit it."""
    try:
        network: nn.Module = _NETWORKS[configuration.network](
            input_channels=channels, num_classes=outputs, deep_supervision=False, **configuration.network_arguments
        )
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        raise AutosegError(f"plans.json describes a network that cannot be built: {error}", _REMEDY) from error
    return network.eval()


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AutosegError(f"{path} cannot be read: {error}", _REMEDY) from error
    if not isinstance(content, dict):
        raise AutosegError(f"{path} holds no plans", _REMEDY)
    return content


def _checkpoint(path: Path) -> dict[str, Any]:
    """Tensors and plain values; nothing in the file is executed."""
    # Its pickles name it as NumPy 2 or as NumPy 1 does.
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    safe = [*_SAFE, *((scalar, name) for name in names)]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content["network_weights"], dict) or content["init_args"]["configuration"] is None:
            raise KeyError("network_weights")
    except Exception as error:  # Damaged and hostile files raise all kinds.
        raise AutosegError(f"{path} cannot be read as weights of nnU-Net: {str(error).splitlines()[0]}", _REMEDY) from error
    return dict(content)


def _check_fit(path: Path, checkpoint: Mapping[str, Any], network: nn.Module) -> None:
    weights, expected = checkpoint["network_weights"], network.state_dict()
    wrong = [name for name, one in expected.items() if name not in weights or weights[name].shape != one.shape]
    extra = sorted(set(weights) - set(expected))
    if wrong or extra:
        raise AutosegError(
            f"{path} does not fit the network of plans.json: {(wrong or extra)[0]}; its trainer is "
            f"{checkpoint.get('trainer_name')}",
            "trainers with a network of their own are not supported; predict with nnU-Net, and compare with --also",
        )


def _configuration(plans: Mapping[str, Any], kind: str, channels: int) -> NNUNetConfiguration:
    try:
        values = _inherited(plans["configurations"], kind)
        architecture = values["architecture"]
        network = architecture["network_class_name"].rpartition(".")[2]
        arguments = dict(architecture["arch_kwargs"])
        for name in architecture["_kw_requires_import"]:
            arguments[name] = None if arguments[name] is None else _layer(arguments[name])
        schemes = tuple(values["normalization_schemes"])
        properties = plans["foreground_intensity_properties_per_channel"]
        patch, spacing, transpose = values["patch_size"], values["spacing"], plans["transpose_forward"]
        if len(patch) != 2 or len(spacing) != 2:
            raise AutosegError(f"{kind} is no 2d configuration of nnU-Net", _REMEDY)
        known = network in _NETWORKS and all(scheme in NORMALISATIONS for scheme in schemes)
        resampling = {values[f"resampling_fn_{of}"] for of in ("data", "probabilities")}
        if not known or resampling != {_RESAMPLING} or tuple(transpose) not in ((0, 1, 2), (0, 2, 1)):
            shown = ", ".join(sorted({network, *schemes, *resampling}))
            raise AutosegError(f"plans.json uses what is not known here: {shown}", "predict with nnU-Net itself")
        return NNUNetConfiguration(
            patch=(int(patch[0]), int(patch[1])), spacing=(float(spacing[0]), float(spacing[1])),
            transpose=tuple(transpose) == (0, 2, 1), normalisations=schemes,
            masked=tuple(map(bool, values["use_mask_for_norm"])),
            intensities=tuple(properties.get(str(channel), {}) for channel in range(channels)),
            order=int(values["resampling_fn_data_kwargs"]["order"]),
            probability_order=int(values["resampling_fn_probabilities_kwargs"]["order"]),
            network=network, network_arguments=arguments,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise AutosegError(f"plans.json lacks what prediction needs: {error}", _REMEDY) from error


def _inherited(configurations: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A configuration with what it takes from others."""
    values = dict(configurations[kind])
    parent = values.pop("inherits_from", None)
    others = {name: one for name, one in configurations.items() if name != kind}
    return {**_inherited(others, parent), **values} if parent else values


def _layer(path: str) -> type[nn.Module]:
    name = path.rpartition(".")[2]
    if not path.startswith("torch.nn.") or name not in _LAYERS:
        raise AutosegError(f"plans.json uses what is not known here: {path[:60]}", "predict with nnU-Net itself")
    return _LAYERS[name]
