"""ISIC 2018, task 1: the border of the lesion in dermoscopic images.

Codella et al.: Skin Lesion Analysis Toward Melanoma Detection 2018. arXiv 1902.03368; images from HAM10000, Tschandl et
al., Scientific Data 5 (2018). Licence: CC BY-NC 4.0. To be had at challenge.isic-archive.com/data, task 1, as six ZIP
files; give the folder that holds them, or into which they were unpacked.

Layout (names of the archives as at that page, and as torch-em's loader of 2025 has them):

    ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg      (also Validation, Test)
    ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png

2,594 training, 100 validation and 1,000 test images; the validation images join the training ones. The ids contain
neither patient nor lesion, so check the near-duplicates.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"ISIC2018_Task1-2_(?P<part>Training|Validation|Test)_Input/(?P<id>ISIC_\d+)\.jpg"
_MASKS = r"ISIC2018_Task1_(?P<part>Training|Validation|Test)_GroundTruth/(?P<id>ISIC_\d+)_segmentation\.png"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, lesion; the official test split is kept."""
    return binary_plan(
        source, _IMAGES, _MASKS, "lesion",
        test=lambda fields: fields["part"].casefold() == "test",
        attributes=lambda fields: {"split": fields["part"].casefold()},
    )  # fmt: skip
