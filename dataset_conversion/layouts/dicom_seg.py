"""DICOM segmentation objects (SEG) with the images they were drawn on.

DICOM PS3.3, A.51 Segmentation IOD. Read by highdicom (Bridge et al., Journal of Digital Imaging 35, 2022). Any folders of
.dcm files: those of the modality SEG are the masks, all others with pixels the images, one slice each; what belongs together
say the references (SOP instance UIDs) inside. Binary and label-map segments are taken; the classes are the segments' labels.
Nothing of a patient is written: cases and groups are numbered, in the order of the UIDs and patient ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from autoseg.io import Label
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import GRAY, RGB, ConversionPlan, Options
from dataset_conversion.reading import image_of, painted
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_PACKAGES = "DICOM segmentations are read by highdicom, which is not here"


@dataclass(frozen=True)
class _Image:
    entry: Entry
    patient: str


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each label of a segment, in the alphabet's order; groups by patient."""
    images, masks = _sorted(source)
    owned: dict[str, list[tuple[Entry, int, str]]] = {}
    draft = ConversionPlan(labels=())
    for entry in masks:
        for uid, number, name in _segments(entry):
            owned.setdefault(uid, []).append((entry, number, name))
    names = sorted({name for parts in owned.values() for _, _, name in parts}, key=str.casefold)
    draft.labels = ["background", *names]
    values = {name: value for value, name in enumerate(names, 1)}
    draft.problems += [f"{owned[uid][0][0].where}: its image {uid} is not there" for uid in owned if uid not in images]
    patients = {patient: number for number, patient in enumerate(sorted({image.patient for image in images.values()}), 1)}
    counts: dict[str, int] = {}
    for uid in sorted(set(owned) & set(images)):
        image = images[uid]
        group = f"patient{patients[image.patient]:04d}"
        counts[group] = counts.get(group, 0) + 1
        parts = [(entry, number, values[name]) for entry, number, name in owned[uid]]
        draft.cases.append(
            NewCase(
                name=f"{group}_{counts[group]:04d}",
                images=[image.entry],
                label=partial(_drawn, image.entry, uid, parts),
                group=group,
            )
        )
    if draft.cases:
        first = draft.cases[0].images[0]
        assert isinstance(first, Entry)
        draft.channels = RGB if image_of(first).array.shape[0] == 3 else GRAY
    draft.ending = ".nii.gz"
    left = len(images) - len(draft.cases)
    if left:
        draft.notes.append(f"{left} images that no segmentation refers to were passed over")
    return draft


def _sorted(source: Source) -> tuple[dict[str, _Image], list[Entry]]:
    """Images by their SOP instance UID, and segmentation objects."""
    pydicom = _package("pydicom")
    images: dict[str, _Image] = {}
    masks: list[Entry] = []
    for entry in source.entries:
        if entry.suffix not in (".dcm", ".dicom", ""):
            continue
        with entry.local() as path:
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
            except pydicom.errors.InvalidDicomError:
                continue
        if header.get("Modality") == "SEG":
            masks.append(entry)
        elif "Rows" in header:
            images[str(header.SOPInstanceUID)] = _Image(entry, str(header.get("PatientID", "")))
    if not masks:
        raise source.nothing_found("DICOM segmentation object")
    return images, masks


def _segments(entry: Entry) -> list[tuple[str, int, str]]:
    """For each image and segment it holds: the image's UID, the segment's number and label."""
    mask = _read(entry)
    names = {number: str(mask.get_segment_description(number).segment_label) for number in mask.segment_numbers}
    sources = sorted({str(uid) for _, _, uid in mask.get_source_image_uids()})
    return [(uid, number, names[number]) for uid in sources for number in names]


def _drawn(image: Entry, uid: str, parts: list[tuple[Entry, int, int]]) -> Label:
    shape = image_of(image).array.shape[1:]
    objects = []
    for entry, number, value in parts:
        planes = _read(entry).get_pixels_by_source_instance(
            [uid], segment_numbers=[number], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        inside = np.asarray(planes[0, ..., 0] > 0)
        if inside.shape != shape:
            raise AutosegError(f"{entry.where}: {inside.shape} pixels, its image has {shape}", "look at both")
        objects.append((value, inside))
    return painted(shape, objects)


def _read(entry: Entry) -> Any:
    highdicom = _package("highdicom")
    with entry.local() as path:
        try:
            return highdicom.seg.segread(path)
        except (ValueError, AttributeError, KeyError) as error:
            raise AutosegError(f"{entry.where} is no segmentation object: {error}", "export it again") from error


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AutosegError(_PACKAGES, 'pip install "autoseg[dicom]"') from error
