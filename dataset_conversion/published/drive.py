"""DRIVE: retinal vessels in 40 fundus photographs.

Staal et al.: Ridge-based vessel segmentation in color images of the retina. IEEE TMI 23 (2004). For research; to be had
from drive.grand-challenge.org. Layout (as in that archive and in torch-em's loader):

    training/images/21_training.tif      training/1st_manual/21_manual1.gif      training/mask/21_training_mask.gif
    test/images/01_test.tif              test/1st_manual/01_manual1.gif          test/mask/01_test_mask.gif
                                         test/2nd_manual/01_manual2.gif

The test images have a second observer; in the challenge's present archive they have no tracing at all. `mask` is the field
of view.
"""

from __future__ import annotations

from dataset_conversion.conversion_plan import ConversionPlan, Options, binary_plan, ignore_outside_fov
from dataset_conversion.source import Source

_IMAGES = r"(training|test)/images/(?P<id>\d+)_(?P<split>training|test)\.tif"
_MASKS = {
    1: r"(training|test)/1st_manual/(?P<id>\d+)_manual1\.gif",
    2: r"(training/1st|test/2nd)_manual/(?P<id>\d+)_manual[12]\.gif",
}
_FIELD = r"mask/(?P<id>\d+_(training|test))_mask\.gif"


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, vessel; the official test split is kept. Observer 2 traced test images only: training images keep the first's."""
    plan = binary_plan(
        source, _IMAGES, _MASKS[options["observer"]], "vessel",
        name=lambda fields: f"{fields['id']}_{fields['split'].casefold()}",
        test=lambda fields: fields["split"].casefold() == "test",
        needs_mask=False,
    )  # fmt: skip
    if options["field_of_view"]:
        ignore_outside_fov(plan, {match["id"]: entry for entry, match in source.find(_FIELD)})
    return plan
