"""Montgomery County chest X-rays: both lungs in 138 radiographs, 58 of them with tuberculosis.

Jaeger et al.: Two public chest X-ray datasets for computer-aided screening of pulmonary diseases. Quantitative Imaging in
Medicine and Surgery 4 (2014). Free with citation, from the U.S. National Library of Medicine as NLM-MontgomeryCXRSet.zip.
Layout (as in that archive and in torch-em's loader):

    MontgomerySet/CXR_png/MCUCXR_0001_0.png      MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png      .../rightMask/

The last figure is 1 where tuberculosis was found. Left and right are the folders' words.
"""

from __future__ import annotations

from functools import partial

from dataset_conversion.conversion_plan import GRAY, ConversionPlan, Options, match_files
from dataset_conversion.reading import merge_class_masks, read_foreground, read_gray_image
from dataset_conversion.source import Source
from dataset_conversion.storing import NewCase

_IMAGES = r"CXR_png/(?P<id>MCUCXR_\d+_(?P<finding>[01]))\.png"
_MASKS = r"(leftMask|rightMask)/(?P<id>MCUCXR_\d+_[01])\.png"


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray; right_lung and left_lung, or one class for both."""
    plan = ConversionPlan(
        labels=("background", "lung") if options["lung"] else ("background", "right_lung", "left_lung"), channels=GRAY
    )
    for item in match_files(source, _IMAGES, _MASKS, plan):
        sides = {side: [mask for mask in item.masks if f"/{side}mask/" in mask.name.casefold()] for side in ("right", "left")}
        if not all(sides.values()):
            plan.problems.append(f"{item.image.where}: a mask of only one lung")
            continue
        label = (
            partial(read_foreground, item.masks)
            if options["lung"]
            else partial(merge_class_masks, {1: sides["right"], 2: sides["left"]})
        )
        finding = "tuberculosis" if item.fields["finding"] == "1" else "normal"
        plan.cases.append(
            NewCase(
                name=item.fields["id"],
                images=[partial(read_gray_image, item.image)],
                label=label,
                attributes={"finding": finding},
            )
        )
    return plan
