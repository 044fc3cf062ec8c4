"""BUSI: breast lesions in 780 ultrasound images, 133 of them of healthy tissue.

Al-Dhabyani et al.: Dataset of breast ultrasound images. Data in Brief 28 (2020). For the licence see the page it is to be had
from, scholar.cu.edu.eg/?q=afahmy/pages/dataset. Layout (as in that archive and in torch-em's loader):

    Dataset_BUSI_with_GT/benign/benign (1).png      benign (1)_mask.png      benign (100)_mask_1.png
    Dataset_BUSI_with_GT/malignant/                 Dataset_BUSI_with_GT/normal/

Several masks of one image are further lesions, which are merged. Masks of healthy tissue are empty. Pictures are gray,
stored as RGB. Known faults (Pawlowska et al., Data in Brief 48, 2023): the same patients and even the same images
several times, also as benign and malignant, without a list of patients; drawn calipers and words in the pictures.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"(?P<kind>benign|malignant|normal)/(?P<id>(?P=kind) ?\(\d+\))\.png"
_MASKS = r"(benign|malignant|normal)/(?P<id>\w+ ?\(\d+\))_mask(_\d+)?\.png"


def find(source: Source, options: Options) -> ConversionPlan:
    """Gray, lesion. The diagnosis goes to cases.csv, not to `groups`, so that each fold has both kinds."""
    return binary_plan(
        source, _IMAGES, _MASKS, "lesion",
        attributes=lambda fields: {"diagnosis": fields["kind"].casefold()},
        keep=lambda item: not (options["without_normal"] and item.fields["kind"].casefold() == "normal"),
        gray=True,
    )  # fmt: skip
