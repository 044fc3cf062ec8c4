"""MoNuSeg: nuclei in stained tissue of several organs, 30 training and 14 test images of 1000 x 1000 pixels.

Kumar et al.: A Multi-Organ Nucleus Segmentation Challenge. IEEE TMI 39 (2020). Licence: CC BY-NC-SA 4.0. To be had from
monuseg.grand-challenge.org/Data as two archives. Layout (as in them and in torch-em's loader):

    MoNuSeg 2018 Training Data/Tissue Images/TCGA-A7-A13E-01Z-00-DX1.tif      .../Annotations/TCGA-A7-A13E-01Z-00-DX1.xml
    MoNuSegTestData/TCGA-2Z-A9J9-01A-01-TS1.tif                               MoNuSegTestData/TCGA-2Z-A9J9-01A-01-TS1.xml

The XML is Aperio ImageScope's: Annotation > Regions > Region > Vertices > Vertex with X and Y in pixels, a region for
each nucleus. A pixel belongs to a nucleus if its centre lies inside. The first three parts of a name are the patient.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import partial

import cv2
import numpy as np

from autoseg.io import Label
from autoseg.io.types import Array
from autoseg.support.errors import AutosegError
from dataset_conversion.conversion_plan import ConversionPlan, Options, file_ending_of, match_files
from dataset_conversion.reading import polygon_mask, read_image_entry
from dataset_conversion.source import Entry, Source
from dataset_conversion.storing import NewCase

_IMAGES = r"(?P<folder>Tissue Images|MoNuSegTestData)/(?P<id>(?P<patient>TCGA-\w+-\w+)-[\w-]+)\.(tif|png)"
_OUTLINES = r"(Annotations|MoNuSegTestData)/(?P<id>TCGA-[\w-]+)\.xml"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, nucleus, groups by patient. With `boundary`, the rim of a nucleus is a class of its own."""
    plan = ConversionPlan(labels=("background", "nucleus", "boundary") if options["boundary"] else ("background", "nucleus"))
    items = match_files(source, _IMAGES, _OUTLINES, plan)
    plan.ending = file_ending_of(items)
    for item in items:
        if item.masks:
            test = item.fields["folder"].casefold() == "monusegtestdata"
            label = partial(_label, item.masks[0], item.image, options["boundary"])
            plan.cases.append(
                NewCase(
                    name=item.fields["id"],
                    images=[item.image],
                    label=label,
                    group=item.fields["patient"],
                    part="Ts" if test else "Tr",
                )
            )
    return plan


def _label(outline_file: Entry, image: Entry, boundary: bool) -> Label:
    shape = read_image_entry(image).array.shape[1:]
    label, rims = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for region in _regions(outline_file):
        inside = polygon_mask(shape, [region]).astype(np.uint8)
        label |= inside
        core = cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        rims |= inside & np.uint8(core == 0)
    if boundary:
        label[rims > 0] = 2
    return Label(array=label, spacing=None)


def _regions(outline_file: Entry) -> list[Array]:
    """Each region's corners (N, 2), x and y. Raises AutosegError for XML that is damaged or defines entities."""
    content = outline_file.bytes()
    if b"<!ENTITY" in content:
        raise AutosegError(f"{outline_file.where} defines entities, which may be harmful", "download it from its publisher")
    try:
        root = ElementTree.fromstring(content)
        return [
            np.array([(float(corner.attrib["X"]), float(corner.attrib["Y"])) for corner in region.iter("Vertex")])
            for region in root.iter("Region")
        ]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise AutosegError(f"{outline_file.where} is no outline file of ImageScope: {error}", "fetch it again") from error
