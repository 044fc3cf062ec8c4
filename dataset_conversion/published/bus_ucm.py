"""BUS-UCLM (also written BUS-UCM): breast lesions in 683 ultrasound images of 38 patients, 419 of them of healthy tissue.

Vallez et al.: BUS-UCLM: Breast ultrasound lesion segmentation dataset. Scientific Data 12 (2025). For the licence see the page
it is to be had from, data.mendeley.com/datasets/7fvgj4jsp7. Layout (as the paper and public loaders have it):

    images/ANFO_005.png      masks/ANFO_005.png      INFO.csv

The four letters before the number are the patient. Masks are RGB: black healthy, green benign, red malignant. A folder
`partitions/` with copies is skipped.
"""

from __future__ import annotations

from functools import partial

from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import GRAY, ConversionPlan, Options, match_files
from dataset_conversion.reading import label_from_colours, read_gray_image
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_IMAGES = r"images/(?P<id>(?P<patient>[A-Z]+)_\d+)\.png"
_MASKS = r"masks/(?P<id>[A-Z]+_\d+)\.png"
_GREEN, _RED = (0, 255, 0), (255, 0, 0)


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray, benign and malignant (or lesion), groups by patient."""
    merge_lesions = options["lesion"]
    plan = ConversionPlan(
        labels=("background", "lesion") if merge_lesions else ("background", "benign", "malignant"), channels=GRAY
    )
    colours = {_GREEN: 1, _RED: 1 if merge_lesions else 2}
    for item in match_files(source, _IMAGES, _MASKS, plan, exclude_folder="partitions"):
        if not item.masks or (options["without_normal"] and _empty(item.masks[0])):
            continue
        plan.cases.append(
            NewCase(
                name=item.fields["id"],
                images=[partial(read_gray_image, item.image)],
                label=partial(label_from_colours, item.masks[0], colours),
                group=item.fields["patient"].upper(),
            )
        )
    return plan


def _empty(mask: Entry) -> bool:
    """False also for an unreadable mask, which is reported when it is written."""
    try:
        return not label_from_colours(mask, {_GREEN: 1, _RED: 1}).array.any()
    except AutosegError:
        return False
