"""BUS-UCLM (also written BUS-UCM): breast lesions in 683 ultrasound images of 38 patients, 419 of them of healthy tissue.

Vallez et al.: BUS-UCLM: Breast ultrasound lesion segmentation dataset. Scientific Data 12 (2025). For the licence see the page
it is to be had from, data.mendeley.com/datasets/7fvgj4jsp7. Layout (as the paper and public loaders have it):

    images/ANFO_005.png      masks/ANFO_005.png      INFO.csv

The four letters before the number are the patient. Masks are RGB: black healthy, green benign, red malignant. A folder
`partitions/` with further copies is passed over.
"""

from __future__ import annotations

from functools import partial

from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import GRAY, ConversionPlan, Options, matched
from dataset_conversion.reading import coloured, gray_image_of
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_IMAGES = r"images/(?P<id>(?P<patient>[A-Z]+)_\d+)\.png"
_MASKS = r"masks/(?P<id>[A-Z]+_\d+)\.png"
_GREEN, _RED = (0, 255, 0), (255, 0, 0)


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray, benign and malignant (or lesion), groups by patient."""
    one = options["lesion"]
    draft = ConversionPlan(labels=("background", "lesion") if one else ("background", "benign", "malignant"), channels=GRAY)
    colours = {_GREEN: 1, _RED: 1 if one else 2}
    for item in matched(source, _IMAGES, _MASKS, draft, without="partitions"):
        if not item.masks or (options["without_normal"] and _empty(item.masks[0])):
            continue
        draft.cases.append(
            NewCase(
                name=item.said["id"],
                images=[partial(gray_image_of, item.image)],
                label=partial(coloured, item.masks[0], colours),
                group=item.said["patient"].upper(),
            )
        )
    return draft


def _empty(mask: Entry) -> bool:
    """False also for one that cannot be read: it is complained about when it is written."""
    try:
        return not coloured(mask, {_GREEN: 1, _RED: 1}).array.any()
    except AutosegError:
        return False
