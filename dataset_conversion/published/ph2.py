"""PH2: the lesion in 200 dermoscopic images.

Mendonca et al.: PH2 - A dermoscopic image database for research and benchmarking. EMBC 2013. For research and education; to be
had from fc.up.pt/addi/ph2%20database.html (a RAR archive, to be unpacked first). Layout (as public loaders have it):

    PH2 Dataset images/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp      IMD002_lesion/IMD002_lesion.bmp      IMD002_roi/
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"IMD\d+_Dermoscopic_Image/(?P<id>IMD\d+)\.bmp"
_MASKS = r"IMD\d+_lesion/(?P<id>IMD\d+)_lesion\.bmp"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, lesion."""
    return binary_plan(source, _IMAGES, _MASKS, "lesion")
