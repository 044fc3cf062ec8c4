"""Checks the weights folder: content as recorded and as published, and tensors that fit the networks they are for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.models import registry
from autoseg.models.published import LoadReport, match_published
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file
from autoseg.weights.catalogue import Entry, encoder_entries, entries, published_at
from autoseg.weights.reading import read_tensors
from autoseg.weights.store import WeightsFolder, check_content


@dataclass(frozen=True, kw_only=True)
class Verified:
    """One file. path: within the weights folder. known: it is recorded or published under this name. fits: MODEL:VARIANT and
    the number of tensors used. faults: what is wrong."""

    path: str
    sha256: str
    size: int
    known: bool
    fits: dict[str, int]
    faults: tuple[str, ...]


def verify(folder: WeightsFolder) -> Iterator[Verified]:
    """Every file of the folder. Each is read, hashed, and compared with the networks it is for, which takes seconds."""
    by_path: dict[str, list[Entry]] = {}
    for entry in entries():
        for place in entry.weights.places:
            by_path.setdefault(place, []).append(entry)
    for file in folder.files():
        name = file.relative_to(folder.path).as_posix()
        yield _verify_file(folder, file, name, by_path.get(name) or encoder_entries(file))


def _verify_file(folder: WeightsFolder, file: Path, name: str, published: list[Entry]) -> Verified:
    faults: list[str] = []
    fits: dict[str, int] = {}
    sha256, recorded = hash_file(file), False
    try:
        record = folder.record(file)
        recorded = record is not None
        if record is not None and record.sha256 != sha256:
            faults.append(f"it has changed since {record.added}, when it came from {record.source} (its SHA-256 differs)")
        elif published:
            check_content(file, published[0].weights)
    except AutosegError as error:
        faults.append(error.problem)
    for entry in published:
        for variant in entry.variants if entry.weights.variant else [registry.spec(entry.model).default_variant]:
            try:
                fits[f"{entry.model}:{variant}"] = len(check_fit(file, entry.model, variant).loaded)
            except AutosegError as error:
                faults.append(f"{entry.model} {variant}: {error.problem}")
    return Verified(
        path=name, sha256=sha256, size=file.stat().st_size, known=recorded or bool(published), fits=fits, faults=tuple(faults)
    )


def check_published(file: Path, path: str) -> None:
    """Raises AutosegError if a file does not fit the networks that the published file of that path is for."""
    for entry in published_at(path):
        check_fit(file, entry.model, entry.weights.variant or registry.spec(entry.model).default_variant)


def check_fit(file: Path, model: str, variant: str) -> LoadReport:
    """How a file would fill a network of three channels and two classes. Raises AutosegError if it does not fit."""
    tensors = read_tensors(file)
    with torch.device("meta"):
        network = registry.build(model, variant)
    return match_published(network, tensors)[1]
