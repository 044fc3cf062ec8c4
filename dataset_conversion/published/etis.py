"""ETIS-Larib Polyp DB: 196 frames of 34 colonoscopy sequences.

Silva et al.: Toward embedded detection of polyps in WCE images for early diagnosis of colorectal cancer. International
Journal of Computer Assisted Radiology and Surgery 9 (2014). For research; to be had from
polyp.grand-challenge.org/EtisLarib (a RAR archive, to be unpacked first). Layout (as public loaders have it; mirrors
call the folders images and masks):

    ETIS-LaribPolypDB/<number>.tif      Ground Truth/p<number>.tif
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"(ETIS-LaribPolypDB|images)/(?P<id>\d+)\.(tif|png)"
_MASKS = r"(Ground ?Truth|masks)/p?(?P<id>\d+)\.(tif|png)"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, polyp."""
    return binary_plan(source, _IMAGES, _MASKS, "polyp")
