"""Kvasir-SEG: 1,000 colonoscopy images with polyps.

Jha et al.: Kvasir-SEG: A Segmented Polyp Dataset. MultiMedia Modeling 2020. For research and education; to be had from
datasets.simula.no/kvasir-seg as kvasir-seg.zip. Layout (as in that archive, and as torch-em's loader has it):

    Kvasir-SEG/images/<id>.jpg      Kvasir-SEG/masks/<id>.jpg

Masks are JPEG with its noise: what is 128 or brighter is polyp. Patients are not published.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"images/(?P<id>[^/]+)\.(jpe?g|png)"
_MASKS = r"masks/(?P<id>[^/]+)\.(jpe?g|png)"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, polyp."""
    return binary_plan(source, _IMAGES, _MASKS, "polyp")
