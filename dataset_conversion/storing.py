"""Reads, checks and stores one case; faults are part of the result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.fingerprint.near_duplicates import thumbnail
from autoseg.fingerprint.validation import count_values, one_line, undeclared_values
from autoseg.io import Image, Label, align, read_image, suffix_of, write_image, write_label
from autoseg.io.types import Array
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.out_of_memory import is_out_of_memory
from dataset_conversion.reading import read_image_entry
from dataset_conversion.source import Entry
from dataset_conversion.stage import StoredCase, encode_thumbnail

_COPIED = (".png", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz")
Picture = Path | Entry | Image | Callable[[], Image]


@dataclass(frozen=True, eq=False, kw_only=True)
class NewCase:
    """A case to write. images: one for each channel, or one for all: a file, a decoded image, or a function that returns one.

    label: label values (H, W), or a function that returns a Label, called in a worker thread; None for a test case without
    a reference. group: the patient, "" if unknown. attributes: further columns of cases.csv, such as image quality.
    turned: the mask fits the image after its EXIF orientation is applied. private: the file may hold texts about a patient, so
    its pixels are written anew, never copied with the file.
    """

    name: str
    images: Sequence[Picture]
    label: Array | Callable[[], Label] | None
    group: str = ""
    part: Literal["Tr", "Ts"] = "Tr"
    attributes: Mapping[str, str] = field(default_factory=dict)
    turned: bool = False
    private: bool = False


def store_case(
    folder: Path | None, case: NewCase, spec: DatasetSpec, scheme: LabelScheme
) -> tuple[StoredCase | None, list[str]]:
    """Write a case into `folder` (None: only read and check it). Returns the stored case, None if it is faulty; and faults."""
    try:
        return _store_case(folder, case, spec, scheme)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None, [f"{_describe_source(case, case.images[0])}: too large for the memory of this machine"]


def _store_case(
    folder: Path | None, case: NewCase, spec: DatasetSpec, scheme: LabelScheme
) -> tuple[StoredCase | None, list[str]]:
    try:
        images = [_read_image(item) for item in case.images]
        label = _label(case)
        label = (
            align(label, images[0], Path(f"the mask of {case.name}"), Path(_describe_source(case, case.images[0])))
            if label
            else None
        )
    except AutosegError as error:
        return None, [one_line(error)]
    faults = _find_faults(case, images, label, spec, scheme)
    if faults:
        return None, faults
    files = [f"images{case.part}/{case.name}_{channel:04d}{spec.file_ending}" for channel in range(len(images))]
    notes = list(label.notes) if label is not None else []
    for item, image, file in zip(case.images, images, files, strict=True):
        try:
            notes += _store_image(item, image, spec.file_ending, None if folder is None else folder / file, case.private)
        except ValueError as error:
            return None, [f"{_describe_source(case, item)}: {error}"]
    if label is not None:
        files.append(f"labels{case.part}/{case.name}{spec.file_ending}")
        if folder is not None:
            write_label(folder / files[-1], label.array, images[0])
    planes = np.concatenate([image.array for image in images]) if len(images) > 1 else images[0].array
    return StoredCase(
        name=case.name,
        part=case.part,
        group=case.group,
        files=tuple(files),
        pixels={} if label is None else _count_pixels(label.array),
        pixel_hash=_hash_pixels(planes),
        thumbnail=encode_thumbnail(thumbnail(planes)),
        notes=tuple(notes),
        attributes=dict(case.attributes),
    ), []


def _read_image(item: Picture) -> Image:
    if isinstance(item, Image):
        return item
    if isinstance(item, Path):
        return read_image(item)
    return read_image_entry(item) if isinstance(item, Entry) else item()


def _label(case: NewCase) -> Label | None:
    if case.label is None or callable(case.label):
        return case.label() if case.label is not None else None
    return Label(array=np.asarray(case.label), spacing=None)


def _store_image(item: Picture, image: Image, ending: str, target: Path | None, private: bool) -> list[str]:
    """Write or copy an image; returns notes on changes. Raises ValueError if the format cannot hold it."""
    suffix = _suffix(item)
    if suffix == ending and ending in _COPIED and not image.notes and not private:
        if target is not None:
            with os_errors_as_autoseg_errors(target):
                target.parent.mkdir(exist_ok=True)
                if isinstance(item, Path):
                    shutil.copyfile(item, target)
                elif isinstance(item, Entry):
                    target.write_bytes(item.bytes())
        return []
    if target is not None:
        write_image(target, image.array, image)
    if suffix is None or suffix == ending:
        return list(image.notes)
    return [*image.notes, f"stored as {ending[1:]} instead of {suffix[1:] or 'a file without suffix'}"]


def _suffix(item: Picture) -> str | None:
    """The suffix of the image's file, None if it does not come from a file."""
    if isinstance(item, Entry):
        return item.suffix
    return suffix_of(item) if isinstance(item, Path) else None


def _describe_source(case: NewCase, item: Picture) -> str:
    return item.where if isinstance(item, Entry) else str(item) if isinstance(item, Path) else case.name


def _find_faults(
    case: NewCase, images: Sequence[Image], label: Label | None, spec: DatasetSpec, scheme: LabelScheme
) -> list[str]:
    faults = []
    where = _describe_source(case, case.images[0])
    channels = sum(image.array.shape[0] for image in images)
    if channels != len(spec.channel_names):
        faults.append(f"{where}: {channels} channels, expected {len(spec.channel_names)}")
    shapes = {image.array.shape[1:] for image in images} | ({label.array.shape} if label is not None else set())
    if len(shapes) > 1:
        faults.append(f"{where}: image and mask differ in size: {' and '.join(_size(shape) for shape in sorted(shapes))}")
    if label is None:
        return [*faults, f"{where}: a training case without a mask"] if case.part == "Tr" else faults
    if any(image.orientation != 1 for image in images) and not case.turned:
        faults.append(f"{where}: has an EXIF orientation, and it is unknown whether its mask was drawn on the turned image")
    return [*faults, *undeclared_values(Path(where), label, scheme.values)]


def _count_pixels(array: Array) -> dict[str, int]:
    counts = count_values(array)
    return {str(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _hash_pixels(planes: Array) -> str:
    digest = hashlib.sha256(f"{planes.shape} {planes.dtype}".encode())
    digest.update(np.ascontiguousarray(planes).tobytes())
    return digest.hexdigest()


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
