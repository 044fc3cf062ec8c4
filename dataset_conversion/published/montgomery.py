"""Montgomery County chest X-rays: both lungs in 138 radiographs, 58 of them with tuberculosis.

Jaeger et al.: Two public chest X-ray datasets for computer-aided screening of pulmonary diseases. Quantitative Imaging in
Medicine and Surgery 4 (2014). Free with citation, from the U.S. National Library of Medicine as NLM-MontgomeryCXRSet.zip.
Layout (as in that archive and in torch-em's loader):

    MontgomerySet/CXR_png/MCUCXR_0001_0.png      MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png      .../rightMask/

The last figure is 1 where tuberculosis was found. Left and right are the folders' words.
"""

from __future__ import annotations

from functools import partial

from dataset_conversion.conversion_plan import GRAY, ConversionPlan, Options, matched
from dataset_conversion.reading import classes_of, foreground_of, gray_image_of
from dataset_conversion.source import Source
from dataset_conversion.storing import NewCase

_IMAGES = r"CXR_png/(?P<id>MCUCXR_\d+_(?P<finding>[01]))\.png"
_MASKS = r"(leftMask|rightMask)/(?P<id>MCUCXR_\d+_[01])\.png"


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray; right_lung and left_lung, or one class for both."""
    draft = ConversionPlan(
        labels=("background", "lung") if options["lung"] else ("background", "right_lung", "left_lung"), channels=GRAY
    )
    for item in matched(source, _IMAGES, _MASKS, draft):
        sides = {side: [mask for mask in item.masks if f"/{side}mask/" in mask.name.casefold()] for side in ("right", "left")}
        if not all(sides.values()):
            draft.problems.append(f"{item.image.where}: a mask of only one lung")
            continue
        label = (
            partial(foreground_of, item.masks)
            if options["lung"]
            else partial(classes_of, {1: sides["right"], 2: sides["left"]})
        )
        finding = "tuberculosis" if item.said["finding"] == "1" else "normal"
        draft.cases.append(
            NewCase(
                name=item.said["id"], images=[partial(gray_image_of, item.image)], label=label, attributes={"finding": finding}
            )
        )
    return draft
