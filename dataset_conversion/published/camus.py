"""CAMUS: the left ventricle, its wall and the left atrium in echocardiographic images of 500 patients.

Leclerc et al.: Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D Echocardiography. IEEE TMI 38 (2019).
Licence: CC BY-NC-SA 4.0. To be had from humanheart-project.creatis.insa-lyon.fr/database. Layout (as that archive has it
and public preprocessing scripts describe it):

    database_nifti/patient0001/patient0001_2CH_ED.nii.gz      patient0001_2CH_ED_gt.nii.gz      Info_2CH.cfg
    database_split/subgroup_training.txt      subgroup_validation.txt      subgroup_testing.txt      (a patient a line)

and the older one of the challenge, with MetaImage files, whose test patients had no masks:

    training/patient0001/patient0001_2CH_ED.mhd + .raw      patient0001_2CH_ED_gt.mhd + .raw      Info_2CH.cfg

Two views (2CH, 4CH) and two phases (ED, ES) a patient. The half sequences are left out: the two phases are part of them.
`Info_*.cfg` has lines `Key: value`; the quality of the image is kept in cases.csv, the rest (sex, age) is not taken over.
"""

from __future__ import annotations

from functools import partial

from dataset_conversion.conversion_plan import GRAY, ConversionPlan, Options, matched
from dataset_conversion.reading import image_of, values_of
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_CASE = r"(?P<patient>patient\d+)/(?P<id>(?P=patient)_(?P<view>[24]CH)_(?P<phase>ED|ES))"
_IMAGES, _MASKS = rf"{_CASE}\.(nii|nii\.gz|mhd)", rf"{_CASE}_gt\.(nii|nii\.gz|mhd)"


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray with spacing, four classes, groups by patient; training and validation list train, the testing list tests."""
    draft = ConversionPlan(labels=("background", "left_ventricle", "myocardium", "left_atrium"), channels=GRAY)
    found = matched(source, _IMAGES, _MASKS, draft, needs_mask=False)
    draft.ending = ".mha" if found[0].image.suffix == ".mhd" else ".nii.gz"
    wanted = {quality.strip().casefold() for quality in (options["quality"] or "").split(",") if quality.strip()}
    testing = _testing(source, draft)
    for item in found:
        test = item.said["patient"].casefold() in testing or "/testing/" in f"/{item.image.name}"
        if not item.masks and not test:
            draft.problems.append(f"{item.image.where}: no mask for this image")
            continue
        quality = _quality(source, item.image, item.said["view"])
        if wanted and quality.casefold() not in wanted:
            continue
        image = partial(image_of, item.image, *_pixels_of(source, item.image))
        mask = partial(values_of, item.masks[0], *_pixels_of(source, item.masks[0])) if item.masks else None
        draft.cases.append(
            NewCase(
                name=item.said["id"],
                images=[image if item.image.suffix == ".mhd" else item.image],
                label=mask,
                group=item.said["patient"],
                part="Ts" if test else "Tr",
                attributes={"view": item.said["view"], "phase": item.said["phase"], "quality": quality},
            )
        )
    return draft


def _testing(source: Source, draft: ConversionPlan) -> set[str]:
    """Patients of the official test list."""
    listing = source.one(r"subgroup_testing\.txt")
    if listing is None:
        draft.notes.append("no database_split/subgroup_testing.txt: every patient with masks trains")
        return set()
    return {line.strip().casefold() for line in listing.text().splitlines() if line.strip()}


def _quality(source: Source, image: Entry, view: str) -> str:
    info = source.get(f"{image.folder}/Info_{view.upper()}.cfg")
    if info is None:
        return ""
    lines = (line.partition(":") for line in info.text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "ImageQuality"), "")


def _pixels_of(source: Source, entry: Entry) -> list[Entry]:
    """The file beside an MHD header that holds its pixels."""
    if entry.suffix != ".mhd":
        return []
    stem = entry.name.removesuffix(".mhd")
    return [found for suffix in (".raw", ".zraw") if (found := source.get(f"{stem}{suffix}")) is not None]
