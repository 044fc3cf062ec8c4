"""CAMUS: the left ventricle, its wall and the left atrium in echocardiographic images of 500 patients.

Leclerc et al.: Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D Echocardiography. IEEE TMI 38 (2019).
Licence: CC BY-NC-SA 4.0. To be had from humanheart-project.creatis.insa-lyon.fr/database. Layout (as that archive has it
and public preprocessing scripts describe it):

    database_nifti/patient0001/patient0001_2CH_ED.nii.gz      patient0001_2CH_ED_gt.nii.gz      Info_2CH.cfg
    database_split/subgroup_training.txt      subgroup_validation.txt      subgroup_testing.txt      (a patient a line)

and the older one of the challenge, with MetaImage files, whose test patients had no masks:

    training/patient0001/patient0001_2CH_ED.mhd + .raw      patient0001_2CH_ED_gt.mhd + .raw      Info_2CH.cfg

Two views (2CH, 4CH) and two phases (ED, ES) a patient. The half sequences are left out: the two phases are part of them.
`Info_*.cfg` has lines `Key: value`; the image quality goes to cases.csv, the rest (sex, age) is not copied.
"""

from __future__ import annotations

from functools import partial

from dataset_conversion.conversion_plan import GRAY, ConversionPlan, Options, match_files
from dataset_conversion.reading import read_image_entry, read_label_entry
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_CASE = r"(?P<patient>patient\d+)/(?P<id>(?P=patient)_(?P<view>[24]CH)_(?P<phase>ED|ES))"
_IMAGES, _MASKS = rf"{_CASE}\.(nii|nii\.gz|mhd)", rf"{_CASE}_gt\.(nii|nii\.gz|mhd)"


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray with spacing, four classes, groups by patient; training and validation list train, the testing list tests. The list
    of a patient goes to cases.csv, as `split`."""
    plan = ConversionPlan(labels=("background", "left_ventricle", "myocardium", "left_atrium"), channels=GRAY)
    items = match_files(source, _IMAGES, _MASKS, plan, needs_mask=False)
    plan.ending = ".mha" if items[0].image.suffix == ".mhd" else ".nii.gz"
    qualities = {quality.strip().casefold() for quality in (options["quality"] or "").split(",") if quality.strip()}
    test_patients = _patients(source, "testing")
    validation_patients = _patients(source, "validation")
    if test_patients is None:
        plan.notes.append("no database_split/subgroup_testing.txt: every patient with masks trains")
    for item in items:
        patient = item.fields["patient"].casefold()
        test = patient in (test_patients or ()) or "/testing/" in f"/{item.image.name}"
        part = "test" if test else "" if test_patients is None and "/training/" not in f"/{item.image.name}" else "training"
        part = "validation" if part == "training" and patient in (validation_patients or ()) else part
        if not item.masks and not test:
            plan.problems.append(f"{item.image.where}: no mask for this image")
            continue
        quality = _quality(source, item.image, item.fields["view"])
        if qualities and quality.casefold() not in qualities:
            continue
        image = partial(read_image_entry, item.image, *_pixel_files(source, item.image))
        mask = partial(read_label_entry, item.masks[0], *_pixel_files(source, item.masks[0])) if item.masks else None
        plan.cases.append(
            NewCase(
                name=item.fields["id"],
                images=[image if item.image.suffix == ".mhd" else item.image],
                label=mask,
                group=item.fields["patient"],
                part="Ts" if test else "Tr",
                attributes={
                    "view": item.fields["view"],
                    "phase": item.fields["phase"],
                    "quality": quality,
                    "split": part,
                },
            )
        )
    return plan


def _patients(source: Source, part: str) -> set[str] | None:
    """Patients of an official list, None without it."""
    listing = source.find_one(rf"subgroup_{part}\.txt")
    if listing is None:
        return None
    return {line.strip().casefold() for line in listing.text().splitlines() if line.strip()}


def _quality(source: Source, image: Entry, view: str) -> str:
    info = source.get(f"{image.folder}/Info_{view.upper()}.cfg")
    if info is None:
        return ""
    lines = (line.partition(":") for line in info.text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "ImageQuality"), "")


def _pixel_files(source: Source, entry: Entry) -> list[Entry]:
    """The data file of an MHD header."""
    if entry.suffix != ".mhd":
        return []
    stem = entry.name.removesuffix(".mhd")
    return [file for suffix in (".raw", ".zraw") if (file := source.get(f"{stem}{suffix}")) is not None]
