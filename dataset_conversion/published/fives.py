"""FIVES: retinal vessels in 800 fundus photographs.

Jin et al.: FIVES: A Fundus Image Dataset for Artificial Intelligence based Vessel Segmentation. Scientific Data 9 (2022).
Licence: CC BY 4.0. To be had from figshare, article 19688169 (a RAR archive, to be unpacked first). Layout (as the paper
and public training code have it):

    train/Original/1_A.png      train/Ground truth/1_A.png      test/Original/1_A.png      test/Ground truth/1_A.png

The letter is the disease: A age-related macular degeneration, D diabetic retinopathy, G glaucoma, N normal. Numbers begin
again in `test`, so the part goes before the name.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"(?P<part>train|test)/Original/(?P<id>\d+_(?P<disease>[ADGN]))\.png"
_MASKS = r"(?P<part>train|test)/Ground ?truth/(?P<id>\d+_[ADGN])\.png"
_DISEASES = {"A": "macular degeneration", "D": "diabetic retinopathy", "G": "glaucoma", "N": "normal"}


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, vessel; the official test split is kept."""
    return binary_plan(
        source, _IMAGES, _MASKS, "vessel",
        name=lambda fields: f"{fields['part'].casefold()}_{fields['id']}",
        test=lambda fields: fields["part"].casefold() == "test",
        attributes=lambda fields: {"disease": _DISEASES[fields["disease"].upper()]},
    )  # fmt: skip
