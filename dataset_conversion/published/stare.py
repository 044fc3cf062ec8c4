"""STARE: retinal vessels in 20 fundus photographs, half of them with disease.

Hoover, Kouznetsova, Goldbaum: Locating blood vessels in retinal images by piecewise threshold probing of a matched filter
response. IEEE TMI 19 (2000). To be had from cecs.clemson.edu/~ahoover/stare as three archives; give the folder that holds them.
Layout (as in those archives and in mmsegmentation's converter):

    stare-images.tar: im0001.ppm.gz      labels-ah.tar: im0001.ah.ppm.gz      labels-vk.tar: im0001.vk.ppm.gz

Two observers: 1 is Hoover (ah), 2 Kouznetsova (vk). There is no official split.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"(?P<id>im\d+)\.ppm(\.gz)?"
_MASKS = {1: r"(?P<id>im\d+)\.ah\.ppm(\.gz)?", 2: r"(?P<id>im\d+)\.vk\.ppm(\.gz)?"}


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, vessel."""
    return binary_plan(source, _IMAGES, _MASKS[options["observer"]], "vessel")
