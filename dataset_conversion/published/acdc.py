"""ACDC: the ventricles and the myocardium in cardiac MR, two phases of 150 patients; each slice is a case.

Bernard et al.: Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis. IEEE TMI 37
(2018). Licence: CC BY-NC-SA 4.0. To be had from humanheart-project.creatis.insa-lyon.fr/database. Layout (as in that archive
and in torch-em's loader):

    database/training/patient001/patient001_frame01.nii.gz      patient001_frame01_gt.nii.gz      Info.cfg
    database/testing/patient101/

Values: 1 right ventricle, 2 myocardium, 3 left ventricle. Slice spacing is 5 to 10 mm, pixel spacing 1 to 2 mm. `Info.cfg`
names the disease (Group), which goes to cases.csv; height and weight are not copied.
`patient001_4d.nii.gz`, the full cycle, has no masks and is left out.
"""

from __future__ import annotations

from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Options, match_files
from dataset_conversion.source import Entry, Source
from dataset_conversion.volumes import Volumes, slices

_CASE = r"(?P<part>training|testing)/(?P<patient>patient\d+)/(?P<id>(?P=patient)_frame\d+)"
_IMAGES, _MASKS = rf"{_CASE}\.(nii|nii\.gz)", rf"{_CASE}_gt\.(nii|nii\.gz)"


def find(source: Source, options: Options) -> ConversionPlan:
    """One gray channel named MR with spacing, four classes, groups by patient; the official test split is kept."""
    plan = ConversionPlan(
        labels=("background", "right_ventricle", "myocardium", "left_ventricle"), channels=("MR",), ending=".nii.gz"
    )
    volumes = Volumes()
    for item in match_files(source, _IMAGES, _MASKS, plan):
        attributes = {"disease": _disease(source, item.image)}
        test = item.fields["part"].casefold() == "testing"
        try:
            plan.cases += slices(
                volumes, item.fields["id"], [item.image], item.masks[0] if item.masks else None, axis=0,
                group=item.fields["patient"], part="Ts" if test else "Tr", attributes=attributes,
            )  # fmt: skip
        except AutosegError as error:
            plan.problems.append(error.problem)
    return plan


def _disease(source: Source, image: Entry) -> str:
    info = source.get(f"{image.folder}/Info.cfg")
    lines = (line.partition(":") for line in (info.text() if info else "").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "Group"), "")
