"""CVC-ColonDB: colonoscopy polyps, frames of 15 recordings.

Bernal, Sanchez, Vilarino: Towards automatic polyp detection with a polyp appearance model. Pattern Recognition 45 (2012);
the set of 380 frames with masks: Tajbakhsh, Gurudu, Liang, IEEE TMI 35 (2016). For research; its page at the Computer
Vision Center, Barcelona, links to the archive. Layout (as public training code has it, such as the test sets of
PraNet):

    images/<number>.png      masks/<number>.png            (also .tif, .tiff, .bmp)

Frames of one recording look alike and are numbered in its order, but the recordings are not published.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan
from dataset_conversion.source import Source

_IMAGES = r"images/(?P<id>\d+)\.(png|tiff?|bmp)"
_MASKS = r"masks/(?P<id>\d+)\.(png|tiff?|bmp)"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, polyp."""
    return binary_plan(source, _IMAGES, _MASKS, "polyp")
