"""HRF: retinal vessels in 45 high-resolution fundus photographs: 15 healthy, 15 diabetic, 15 with glaucoma.

Budai et al.: Robust Vessel Segmentation in Fundus Images. International Journal of Biomedical Imaging 2013. Licence: CC BY
4.0. To be had from www5.cs.fau.de/research/data/fundus-images as one archive (all.zip) or several. Layout (as public loaders
have it; in the archives of one disease each the folders are missing):

    images/01_h.jpg      manual1/01_h.tif      mask/01_h_mask.tif      (h healthy, dr diabetic retinopathy, g glaucoma)

`mask` is the field of view. There is no official split.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan, ignore_outside_fov
from dataset_conversion.source import Source

_IMAGES = r"(?P<id>\d+_(?P<disease>h|dr|g))\.jpe?g"
_MASKS, _FIELD = r"(?P<id>\d+_(h|dr|g))\.tif", r"(?P<id>\d+_(h|dr|g))_mask\.tif"
_DISEASES = {"h": "healthy", "dr": "diabetic retinopathy", "g": "glaucoma"}


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, vessel."""
    plan = binary_plan(
        source, _IMAGES, _MASKS, "vessel", attributes=lambda fields: {"disease": _DISEASES[fields["disease"].casefold()]}
    )
    if options["field_of_view"]:
        ignore_outside_fov(plan, {match["id"]: entry for entry, match in source.find(_FIELD)})
    return plan
