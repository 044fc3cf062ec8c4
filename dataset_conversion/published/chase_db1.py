"""CHASE_DB1: retinal vessels in the eyes of 14 children.

Fraz et al.: An Ensemble Classification-Based Approach Applied to Retinal Blood Vessel Segmentation. IEEE TBME 59 (2012). For
research; to be had from Kingston University, London, as CHASEDB1.zip. Layout (as in that archive and in mmsegmentation's
converter):

    Image_01L.jpg      Image_01L_1stHO.png      Image_01L_2ndHO.png

The number is the child and L or R the eye, so both eyes are one group. There is no official split; many papers take the first
20 images to train.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"(?P<id>Image_(?P<child>\d+)[LR])\.jpg"
_MASKS = {1: r"(?P<id>Image_\d+[LR])_1stHO\.png", 2: r"(?P<id>Image_\d+[LR])_2ndHO\.png"}


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, vessel; groups by child."""
    return binary_plan(source, _IMAGES, _MASKS[options["observer"]], "vessel", group=lambda fields: f"child{fields['child']}")
