"""The one place that writes a raw dataset, whichever form it came in: it checks while it writes, and leaves all or nothing.

nnU-Net v2's layout has one file ending for images and masks, so it must be lossless: JPEG images are stored as PNG, pixel
for pixel. DICOM becomes NIfTI, and MetaImage and NRRD are written afresh, so that no patient's tags come along. All other
files are copied byte for byte, unless reading had to change something (see `Image.notes`).
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.fingerprint.checks import one_line, undeclared_values
from autoseg.io import Image, Label, read_image, suffix_of, write_image, write_label
from autoseg.io.contents import Array
from autoseg.io.raw_dataset import write_description
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import replacing_folder
from autoseg.support.log import progress
from autoseg.support.workers import ordered_map
from autoseg.support.workspace import Dataset, Workspace

_MIXED_TIFF = (".tif", ".tiff")
_COPIED = (".png", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz")
_STORED_AS = {".jpg": ".png", ".jpeg": ".png", ".dcm": ".nii.gz", ".mhd": ".mha", "": ".nii.gz"}
_FIRST_NUMBER = 501


@dataclass(frozen=True, eq=False)
class NewCase:
    """A case to be written. images: one file or decoded image for each channel, or one that holds all.

    label: (H, W) of label values; None for a test case without a reference. group: the patient, "" if not known.
    """

    name: str
    images: Sequence[Path | Image]
    label: Array | None
    group: str = ""
    part: Literal["Tr", "Ts"] = "Tr"


def write_dataset(
    dataset: Dataset,
    spec: DatasetSpec,
    cases: Iterable[NewCase | Callable[[], NewCase]],
    overwrite: bool = False,
    workers: int | None = None,
) -> tuple[DatasetSpec, tuple[str, ...]]:
    """Writes the raw dataset; gives its description as written and notes on what was changed of the files.

    spec: numTraining and groups are filled in here. cases: those given as functions are made in the worker threads.
    Raises SeveralProblems with every fault of every case, and AutosegError where the dataset exists and may not be
    overwritten; the folder is then as it was before.
    """
    _check_free(dataset, overwrite)
    scheme = spec.label_scheme()
    notes: Counter[str] = Counter()
    problems: list[str] = []
    groups: dict[str, str] = {}
    taken: dict[str, str] = {}
    training = 0
    with replacing_folder(dataset.raw) as folder:
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()

        def write(case: NewCase | Callable[[], NewCase]) -> tuple[NewCase | None, list[str], list[str]]:
            try:
                made = case() if callable(case) else case
                return made, *_write_case(folder, made, spec, scheme)
            except AutosegError as error:
                return None, [one_line(error)], []

        for made, faults, changes in progress(ordered_map(write, cases, workers), "write"):
            problems += faults
            notes.update(changes)
            if made is None:
                continue
            if made.name.casefold() in taken:
                problems.append(f"two cases are called {made.name} and {taken[made.name.casefold()]}")
            taken[made.name.casefold()] = made.name
            training += made.part == "Tr"
            if made.group:
                groups[made.name] = made.group
        if not training and not problems:
            problems.append("there is no training case")
        if problems:
            raise SeveralProblems(f"{dataset.name} was not written", problems, "mend these files and convert again")
        written = replace(spec, numTraining=training, groups=groups, name=spec.name or dataset.short_name)
        write_description(folder / "dataset.json", written)
    return written, tuple(f"{note} ({count} file{'s' if count > 1 else ''})" for note, count in sorted(notes.items()))


def next_number(workspace: Workspace) -> int:
    """The first free number from 501 on."""
    used = {dataset.number for dataset in workspace.datasets()}
    return next(number for number in range(_FIRST_NUMBER, _FIRST_NUMBER + len(used) + 1) if number not in used)


def common_ending(paths: Iterable[Path]) -> str:
    """The ending under which a set of image files is stored. Raises AutosegError for pictures mixed with medical files."""
    endings = {_STORED_AS.get(suffix_of(path), suffix_of(path)) for path in paths}
    if len(endings) == 1:
        return endings.pop()
    pictures = {".png", ".bmp", *_MIXED_TIFF}
    if endings & pictures and endings - pictures:
        raise AutosegError(f"images come as {', '.join(sorted(endings))}", "give pictures and medical files as two datasets")
    if endings <= pictures:
        return ".tif" if endings & set(_MIXED_TIFF) else ".png"
    return ".nii.gz"


def safe_names(stems: Sequence[str]) -> dict[str, str]:
    """stem -> a case name of letters, digits, '_', '-' and '.', unique even where capitals don't count."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for stem in stems:
        plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
        base = re.sub(r"[^A-Za-z0-9.-]+", "_", plain).strip("_.-") or "case"
        # An underscore in the stem itself is no reason to change it.
        name = base = stem if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stem) else base
        count = 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name.casefold())
        names[stem] = name
    return names


def _check_free(dataset: Dataset, overwrite: bool) -> None:
    for other in Workspace(dataset.root).datasets():
        if other.number == dataset.number and other.name.casefold() != dataset.name.casefold():
            raise AutosegError(f"the number {dataset.number} belongs to {other.name}", "choose another number with --id")
    if dataset.raw.exists() and not overwrite:
        raise AutosegError(f"{dataset.raw} exists", "choose another number or name, or allow it to be overwritten")


def _write_case(folder: Path, case: NewCase, spec: DatasetSpec, scheme: LabelScheme) -> tuple[list[str], list[str]]:
    """Faults and changes."""
    images = [read_image(item) if isinstance(item, Path) else item for item in case.images]
    faults = _faults(case, images, spec, scheme)
    if faults:
        return faults, []
    changes: list[str] = []
    for channel, (item, image) in enumerate(zip(case.images, images, strict=True)):
        target = folder / f"images{case.part}" / f"{case.name}_{channel:04d}{spec.file_ending}"
        if isinstance(item, Path) and suffix_of(item) == spec.file_ending and spec.file_ending in _COPIED and not image.notes:
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(item, target)
            continue
        try:
            write_image(target, image.array, image)
        except ValueError as error:
            return [f"{item if isinstance(item, Path) else case.name}: {error}"], []
        changes += image.notes
        if isinstance(item, Path) and suffix_of(item) != spec.file_ending:
            changes.append(f"stored as {spec.file_ending[1:]} instead of {suffix_of(item)[1:] or 'a file without suffix'}")
    if case.label is not None:
        write_label(folder / f"labels{case.part}" / f"{case.name}{spec.file_ending}", case.label, images[0])
    return [], changes


def _faults(case: NewCase, images: Sequence[Image], spec: DatasetSpec, scheme: LabelScheme) -> list[str]:
    faults = []
    where = str(case.images[0]) if isinstance(case.images[0], Path) else case.name
    channels = sum(image.array.shape[0] for image in images)
    if channels != len(spec.channel_names):
        faults.append(f"{where}: {channels} channels, expected {len(spec.channel_names)}")
    shapes = {image.array.shape[1:] for image in images} | ({case.label.shape} if case.label is not None else set())
    if len(shapes) > 1:
        faults.append(f"{where}: image and mask differ in size: {' and '.join(_size(shape) for shape in sorted(shapes))}")
    if case.label is None and case.part == "Tr":
        faults.append(f"{where}: a training case without a mask")
    if case.label is not None:
        faults += undeclared_values(Path(where), Label(np.asarray(case.label), None), scheme.values)
    return faults


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
