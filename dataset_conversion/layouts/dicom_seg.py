"""DICOM segmentation objects (SEG) with the images they were drawn on.

DICOM PS3.3, A.51 Segmentation IOD. Read by highdicom (Bridge et al., Journal of Digital Imaging 35, 2022). Any folders of
.dcm files: those of the modality SEG are the masks, all others with pixels the images, one slice each; the references
(SOP instance UIDs) inside pair them. Binary, fractional (from half on) and label-map segments are taken; the classes are the
segments' labels.
Nothing of a patient is written: cases and groups are numbered, in the order of the UIDs and patient ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from autoseg.io import Label, dicom, segmentation
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import GRAY, RGB, ConversionPlan, Options
from dataset_conversion.reading import paint_objects, read_image_entry
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_PACKAGES = "DICOM segmentations are read by highdicom, which is not installed"


@dataclass(frozen=True)
class _Image:
    entry: Entry
    patient: str


def find(source: Source, options: Options) -> ConversionPlan:
    """A class for each label of a segment, in the alphabet's order; groups by patient."""
    images, masks = _split_files(source)
    segments_by_uid: dict[str, list[tuple[Entry, int, str]]] = {}
    plan = ConversionPlan(labels=())
    for entry in masks:
        for uid, number, name in _segments(entry):
            segments_by_uid.setdefault(uid, []).append((entry, number, name))
    names = sorted({name for parts in segments_by_uid.values() for _, _, name in parts}, key=str.casefold)
    plan.labels = ["background", *names]
    values = {name: value for value, name in enumerate(names, 1)}
    plan.problems += [
        f"{segments_by_uid[uid][0][0].where}: its image {uid} is not there" for uid in segments_by_uid if uid not in images
    ]
    patients = {patient: number for number, patient in enumerate(sorted({image.patient for image in images.values()}), 1)}
    counts: dict[str, int] = {}
    for uid in sorted(set(segments_by_uid) & set(images)):
        image = images[uid]
        group = f"patient{patients[image.patient]:04d}"
        counts[group] = counts.get(group, 0) + 1
        parts = [(entry, number, values[name]) for entry, number, name in segments_by_uid[uid]]
        plan.cases.append(
            NewCase(
                name=f"{group}_{counts[group]:04d}",
                images=[image.entry],
                label=partial(_draw_label, image.entry, uid, parts),
                group=group,
            )
        )
    if plan.cases:
        first = plan.cases[0].images[0]
        assert isinstance(first, Entry)
        plan.channels = RGB if read_image_entry(first).array.shape[0] == 3 else GRAY
    plan.ending = ".nii.gz"
    unused = len(images) - len(plan.cases)
    if unused:
        plan.notes.append(f"{unused} images that no segmentation refers to were skipped")
    return plan


def _split_files(source: Source) -> tuple[dict[str, _Image], list[Entry]]:
    """Images by their SOP instance UID, and segmentation objects."""
    _import_package("pydicom")
    images: dict[str, _Image] = {}
    masks: list[Entry] = []
    for entry in source.entries:
        if entry.suffix not in (".dcm", ".dicom", ""):
            continue
        with entry.local() as path:
            if not dicom.is_dicom(path):
                continue
            header = dicom.header(path)
        if header.get("Modality") == "SEG":
            masks.append(entry)
        elif "Rows" in header:
            images[str(header.SOPInstanceUID)] = _Image(entry, str(header.get("PatientID", "")))
    if not masks:
        raise source.layout_error("DICOM segmentation object")
    return images, masks


def _segments(entry: Entry) -> list[tuple[str, int, str]]:
    """For each image and segment it holds: the image's UID, the segment's number and label."""
    mask = _read_segmentation(entry)
    names = {number: str(mask.get_segment_description(number).segment_label) for number in mask.segment_numbers}
    sources = sorted({str(uid) for _, _, uid in mask.get_source_image_uids()})
    return [(uid, number, names[number]) for uid in sources for number in names]


def _draw_label(image: Entry, uid: str, parts: list[tuple[Entry, int, int]]) -> Label:
    shape = read_image_entry(image).array.shape[1:]
    objects = []
    notes: tuple[str, ...] = ()
    for entry, number, value in parts:
        mask = _read_segmentation(entry)
        fractional = str(mask.segmentation_type.value) == "FRACTIONAL"
        planes = mask.get_pixels_by_source_instance(
            [uid], segment_numbers=[number], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        # Fractions come between 0 and 1; any probability above 0 would be far too much.
        inside = np.asarray(planes[0, ..., 0] >= 0.5 if fractional else planes[0, ..., 0] > 0)
        notes = (segmentation.FRACTIONAL_NOTE,) if fractional else notes
        if inside.shape != shape:
            raise AutosegError(f"{entry.where}: {inside.shape} pixels, its image has {shape}", "check both files")
        objects.append((value, inside))
    return paint_objects(shape, objects, notes)


def _read_segmentation(entry: Entry) -> Any:
    highdicom = _import_package("highdicom")
    with entry.local() as path:
        try:
            return highdicom.seg.segread(path)
        except (ValueError, AttributeError, KeyError) as error:
            raise AutosegError(f"{entry.where} is no segmentation object: {error}", "export it again") from error


def _import_package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AutosegError(_PACKAGES, 'pip install "autoseg[dicom]"') from error
