"""BKAI-IGH NeoPolyp-Small: colonoscopy polyps, neoplastic and not.

Lan et al.: NeoUNet: Towards Accurate Colon Polyp Segmentation and Neoplasm Detection. ISVC 2021. To be had from the Kaggle
competition bkai-igh-neopolyp, whose rules allow research. Layout (as that competition's archive has it, seen in several
public notebooks; folders may be doubled, train/train/):

    train/<id>.jpeg      train_gt/<id>.jpeg      test/<id>.jpeg

1,000 training images and 200 test images without masks. Masks are JPEG: red is neoplastic, green non-neoplastic, with the
noise that JPEG makes, so each pixel goes to the nearest colour. Patients are not published.
"""

from __future__ import annotations

from functools import partial

from dataset_conversion.conversion_plan import ConversionPlan, Options, match_files
from dataset_conversion.reading import label_from_colours
from dataset_conversion.source import Source
from dataset_conversion.storing import NewCase

_IMAGES = r"(?P<split>train|test)(/(train|test))?/(?P<id>[^/]+)\.(jpe?g|png)"
_MASKS = r"train_gt(/train_gt)?/(?P<id>[^/]+)\.(jpe?g|png)"
_COLOURS = {(255, 0, 0): 1, (0, 255, 0): 2}


def find(source: Source, options: Options) -> ConversionPlan:
    """RGB, neoplastic and non_neoplastic."""
    plan = ConversionPlan(labels=("background", "neoplastic", "non_neoplastic"))
    for item in match_files(source, _IMAGES, _MASKS, plan, needs_mask=False):
        if not item.masks and item.fields["split"].casefold() == "train":
            plan.problems.append(f"{item.image.where}: no mask for this image")
            continue
        label = partial(label_from_colours, item.masks[0], _COLOURS) if item.masks else None
        plan.cases.append(NewCase(name=item.fields["id"], images=[item.image], label=label, part="Tr" if item.masks else "Ts"))
    return plan
