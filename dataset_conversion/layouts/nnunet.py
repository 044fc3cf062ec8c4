"""nnU-Net v2's raw datasets: 2D ones as they are, 3D ones as slices.

Isensee et al.: nnU-Net. Nature Methods 18 (2021); the layout is described in nnU-Net's documentation/dataset_format.md:

    dataset.json      imagesTr/<case>_0000.nii.gz      labelsTr/<case>.nii.gz      imagesTs/      labelsTs/

A 2D dataset needs no conversion; this checks it, reports duplicates and makes a contact sheet. Of a volume, each slice
across one axis (by default the one with the widest spacing) becomes a case with the spacing of its plane, and the volume, or
the patient in `groups`, a group. Labels, regions and the ignore label stay as they are.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

from autoseg.io.raw_dataset import read_description, split_channels
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Options
from dataset_conversion.reading import read_label_entry
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase
from dataset_conversion.volumes import AXES, Volumes, slices

_MEDICAL = (".nii", ".nii.gz", ".mha", ".nrrd")
Part = Literal["Tr", "Ts"]
_PARTS: tuple[Part, ...] = ("Tr", "Ts")


def find(source: Source, options: Options) -> ConversionPlan:
    """Labels and channels of dataset.json; slices are stored as NIfTI."""
    description = source.find_one(r"dataset\.json")
    if description is None:
        raise source.layout_error("dataset.json")
    with description.local() as path:
        spec = read_description(path)
    plan = ConversionPlan(labels=list(spec.labels), channels=list(spec.channel_names.values()), ending=spec.file_ending)
    plan.spec = {"labels": spec.labels, "regions_class_order": spec.regions_class_order}
    plan.spec |= {key: value for key in ("licence", "reference", "description") if (value := getattr(spec, key))}
    if spec.modality and not options["modality"]:
        plan.spec["modality"] = spec.modality
    volumes = Volumes()
    for part in _PARTS:
        for name, files in sorted(_cases(source, description.folder, part, spec.file_ending, len(spec.channel_names)).items()):
            images = [files[number] for number in sorted(files)]
            mask = source.get(_inside(description.folder, f"labels{part}/{name}{spec.file_ending}"))
            if mask is None and part == "Tr":
                plan.problems.append(f"{images[0].where}: no mask for this image")
                continue
            try:
                plan.cases += _new_cases(volumes, name, images=images, mask=mask, part=part, spec=spec, options=options)
            except AutosegError as error:
                plan.problems.append(error.problem)
    if any("_slice" in case.name and "slice" in case.attributes for case in plan.cases):
        plan.ending = ".nii.gz"
    if not plan.cases and not plan.problems:
        raise source.layout_error(f"imagesTr/*_0000{spec.file_ending}")
    return plan


def _inside(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def _cases(source: Source, folder: str, part: str, ending: str, channels: int) -> dict[str, dict[int, Entry]]:
    """Case -> number of the channel -> file."""
    files = _files(source, _inside(folder, f"images{part}/"), ending)
    numbered = split_channels(files, channels, _files(source, _inside(folder, f"labels{part}/"), ending))
    files_by_case: dict[str, dict[int, Entry]] = {}
    for stem, entry in files.items():
        name, channel = numbered.get(stem, (stem, 0))
        files_by_case.setdefault(name, {})[channel] = entry
    return files_by_case


def _files(source: Source, folder: str, ending: str) -> dict[str, Entry]:
    """Stem -> file of a folder."""
    expression = re.compile(rf"{re.escape(folder)}([^/]+){re.escape(ending)}")
    return {match[1]: entry for entry in source.entries if (match := expression.fullmatch(entry.name))}


def _new_cases(
    volumes: Volumes, name: str, images: list[Entry], mask: Entry | None, part: Part, spec: DatasetSpec, options: Options
) -> list[NewCase]:
    group = spec.groups.get(name, "")
    if images[0].suffix in _MEDICAL and volumes.is_volume(images[0]):
        axis = AXES.index(options["axis"]) if options["axis"] else None
        return slices(volumes, name, images, mask, axis, group=group, part=part, labelled=options["labelled"])
    return [
        NewCase(name=name, images=list(images), label=partial(read_label_entry, mask) if mask else None, group=group, part=part)
    ]
