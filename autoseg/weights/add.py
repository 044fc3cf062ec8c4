"""Puts files that the user already has into the weights folder: checked, and with a record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoseg.models.published_weights import PublishedWeights
from autoseg.schema.weights import WEIGHTS_SUFFIXES, WeightsRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.weights.catalogue import encoder_entries, entries, parse_request
from autoseg.weights.store import WeightsFolder, check_content, new_record
from autoseg.weights.verify import check_fit, check_published

_DEEPEST = 6


def add_file(file: Path, folder: WeightsFolder, request: str = "") -> WeightsRecord:
    """Copy a published file into the folder. request: MODEL or MODEL:VARIANT it is for, if its name does not say so.

    Raises AutosegError if it is no published file, damaged, or does not fit the model. The folder is then unchanged.
    """
    if request:
        spec, variant = parse_request(request)
        known = spec.weights_for(variant, study=True)
        weights = _one_of(file, known, f"{spec.name} {variant}")
        check_content(file, weights)
        check_fit(file, spec.name, variant)
    else:
        weights = _one_of(file, [entry.weights for entry in (*entries(), *encoder_entries(file.absolute()))], "any model")
        check_content(file, weights)
        check_published(file, weights.path)
    return copy_file(file, weights, folder, file.name)


def add_folder(source: Path, folder: WeightsFolder) -> list[WeightsRecord]:
    """Copy every published file below a folder, by its name or that of its repository. Raises AutosegError if there is none."""
    known = list({entry.weights.path: entry.weights for entry in entries()}.values())
    found = []
    for file in files_below(source.absolute()):
        weights = matching(file, known) or matching(file, [entry.weights for entry in encoder_entries(file)])
        if weights is not None:
            found.append((file, weights))
    if not found:
        raise AutosegError(f"{source} holds no published weights by name", "autoseg_weights list shows their names")
    for file, weights in found:
        check_content(file, weights)
        check_published(file, weights.path)
    base = source.absolute()
    return [copy_file(file, weights, folder, f"{base.name}/{file.relative_to(base).as_posix()}") for file, weights in found]


def copy_file(file: Path, weights: PublishedWeights, folder: WeightsFolder, source: str) -> WeightsRecord:
    """Copy a file that was checked to its place in the folder, with its record. source: where it came from."""
    record = new_record(weights, hash_file(file), file.stat().st_size, source)
    place = folder.path / record.path
    copy = place.with_name(f"{place.name}.adding")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os_errors_as_autoseg_errors(place):
            shutil.copyfile(file, copy)
        folder.keep(copy, record)
    finally:
        copy.unlink(missing_ok=True)
    return record


def files_below(source: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    """Weights files in a folder and its subfolders; links are followed, as the hub's cache has them."""
    for path in sorted(source.iterdir()):
        if path.is_dir() and depth:
            yield from files_below(path, depth - 1)
        elif path.suffix in WEIGHTS_SUFFIXES and path.is_file():
            yield path


def matching(file: Path, known: Sequence[PublishedWeights]) -> PublishedWeights | None:
    """Which published file it is: by its repository's folder (as here, or in the hub's cache), else by its own name."""
    of_name = [weights for weights in known if weights.file == file.name]
    by_repository = [weights for weights in of_name if weights.repository and _is_in_repository(file, weights.repository)]
    by_name = [weights for weights in of_name if weights.file in weights.places]
    return next(iter([*by_repository, *by_name]), None)


def _is_in_repository(file: Path, repository: str) -> bool:
    owner, _, name = repository.partition("/")
    return file.parts[-3:-1] == (owner, name) or f"models--{owner}--{name}" in file.parts


def _one_of(file: Path, known: Sequence[PublishedWeights], what: str) -> PublishedWeights:
    if not file.is_file():
        raise AutosegError(f"there is no file {file}", "give a weights file, a folder of them, or a kit")
    weights = matching(file.absolute(), known)
    if weights is None:
        same_name = {one.path: one for one in known if one.file == file.name}
        if len(same_name) == 1:
            return next(iter(same_name.values()))
        choice = ", ".join(same_name or {one.file: one for one in known}) if len(known) < 20 or same_name else ""
        raise AutosegError(
            f"{file.name} is the name of {'several' if same_name else 'no'} published weights of {what}"
            + (f": {choice}" if choice else ""),
            "name the model (--for MODEL:VARIANT), or put it into a folder OWNER/REPOSITORY, or train with --pretrained FILE",
        )
    return weights
