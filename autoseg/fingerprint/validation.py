"""Validation of a raw dataset: all faults are listed, not only the first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.io import Case, DecodedImageCache, Image, Label, RawDataset, align, is_image, read_case, read_label, stem_of
from autoseg.io.types import Array
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map

REMEDY = "fix the files or dataset.json; autoseg_convert writes a valid dataset"


def check_dataset(raw: RawDataset, workers: int | None = None) -> None:
    """Reads every training image and mask. Raises SeveralProblems with one line for each fault.

    Faults: missing, unreadable and lossy files, sizes, spacings or places that differ between image and mask, values the
    labels do not declare (with pixel counts), wrong numbers of channels, masks without an image, groups of unknown cases.
    """
    faults = layout_faults(raw)

    def check(case: Case) -> list[str]:
        image, label, problems = load_case(case)
        return problems + validate_case(case, image, label, len(raw.spec.channel_names), raw.scheme)

    for problems in progress_bar(parallel_map(check, raw.cases, workers), "check", len(raw.cases)):
        faults += problems
    raise_faults(faults)


def raise_faults(faults: list[str]) -> None:
    """Raises SeveralProblems if there are any."""
    if faults:
        raise SeveralProblems(f"the dataset has {len(faults)} fault{'s' if len(faults) > 1 else ''}", faults, REMEDY)


def layout_faults(raw: RawDataset) -> list[str]:
    """Faults in file names and dataset.json; no image is read."""
    names = {case.name for case in raw.cases}
    faults = []
    for folder in sorted({case.label.parent for case in raw.cases if case.label}) if not raw.listed else ():
        label_files = {case.label for case in raw.cases}
        extra = [path for path in sorted(folder.iterdir()) if is_image(path) and path not in label_files]
        faults += [f"{path}: a mask without an image" for path in extra if stem_of(path) not in names]
    unknown = sorted(set(raw.spec.groups) - names - {case.name for case in raw.test_cases})
    faults += [f"dataset.json: groups contains the case {name!r}, which does not exist" for name in unknown]
    return faults


def load_case(case: Case, cache: DecodedImageCache | None = None) -> tuple[Image | None, Label | None, list[str]]:
    """Image and mask of a case, None if unreadable, and the faults. cache: reads through this cache."""
    problems = []
    image, label = None, None
    try:
        image = cache.image(case.images) if cache else read_case(case.images)
    except AutosegError as error:
        problems.append(one_line(error))
    if case.label is None:
        problems.append(f"{case.name}: no mask for {case.images[0]}")
        return image, None, problems
    try:
        stored = cache.label(case.label) if cache else read_label(case.label)
        label = align(stored, image, case.label, case.images[0]) if image is not None else stored
    except AutosegError as error:
        problems.append(one_line(error))
    return image, label, problems


def validate_case(case: Case, image: Image | None, label: Label | None, channels: int, scheme: LabelScheme) -> list[str]:
    """Faults of a case of which image or mask could be read."""
    faults = []
    if image is not None and image.array.shape[0] != channels:
        faults.append(f"{case.images[0]}: {image.array.shape[0]} channels, dataset.json has {channels}")
    if label is None or case.label is None:
        return faults
    if label.lossy:
        faults.append(f"{case.label}: the mask is a JPEG, whose values are not exact: use PNG")
    else:
        faults += undeclared_values(case.label, label, scheme.values)
    if image is None:
        return faults
    if image.array.shape[1:] != label.array.shape:
        sizes = [" x ".join(str(side) for side in array.shape[-2:]) for array in (label.array, image.array)]
        faults.append(f"{case.label}: {sizes[0]} pixels, its image has {sizes[1]}")
    elif image.spacing and label.spacing and not np.allclose(image.spacing, label.spacing, rtol=1e-2):
        faults.append(f"{case.label}: a spacing of {label.spacing} mm, its image has {image.spacing} mm")
    return faults


def undeclared_values(path: Path, label: Label, declared: tuple[int, ...]) -> list[str]:
    """One line with the undeclared values of a mask and their pixel counts; empty without any."""
    # Usually the largest value is enough, and counting is slow.
    if declared == tuple(range(len(declared))) and label.array.size and label.array.max() < len(declared):
        return []
    counts = count_values(label.array)
    undeclared = [value for value in np.flatnonzero(counts) if value not in declared]
    if not undeclared:
        return []
    values_text = ", ".join(f"{value} ({counts[value]} pixels)" for value in undeclared[:8])
    more = f" and {len(undeclared) - 8} more" if len(undeclared) > 8 else ""
    declared_text = ", ".join(str(value) for value in declared)
    return [f"{path}: has the value{'s' if len(undeclared) > 1 else ''} {values_text}{more}; declared are {declared_text}"]


def count_values(label: Array) -> npt.NDArray[np.int64]:
    """Pixel count of each value of a label map, from 0 to the highest."""
    # OpenCV counts bytes five times faster, in float32: exact up to 2^24.
    if label.dtype == np.uint8 and label.size < 2**24:
        counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        return counts[: int(np.flatnonzero(counts)[-1]) + 1 if label.size else 1]
    return np.bincount(label.ravel())


def one_line(error: AutosegError) -> str:
    """Problem and remedy in one line."""
    return f"{error.problem} ({error.remedy})" if error.remedy else error.problem
