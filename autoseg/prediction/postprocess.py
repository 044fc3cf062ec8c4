"""What can be done to a mask after the network: drop specks, keep the largest object, fill holes, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import PostProcessing

Array = NDArray[Any]


def apply(labels: Array, scheme: LabelScheme, chosen: Mapping[str, PostProcessing]) -> Array:
    """The label map (H, W) after each class's post-processing, in the order of the classes.

    Dropped pixels become background; filled ones were background and take the class's value. For regions, the value is
    the one the region paints.
    """
    if not chosen:
        return labels
    result: Array = labels.copy()
    for place, (name, member) in enumerate(scheme.foreground.items()):
        if name not in chosen:
            continue
        mask = np.isin(result, member)
        kept = clean(mask, chosen[name])
        result[mask & ~kept] = 0
        result[kept & ~mask & (result == 0)] = scheme.paint[place] if scheme.regions else member[0]
    return result


def clean(mask: Array, what: PostProcessing) -> Array:
    """A boolean mask (H, W) after one class's post-processing. Objects are 8-connected, holes 4-connected."""
    # Both take up to half a second to import, and most predictions need neither.
    if what.min_object_fraction or what.keep_largest:
        from acvl_utils.morphology.morphology_helper import generic_filter_components, remove_components

        if what.min_object_fraction:
            mask = remove_components(mask, what.min_object_fraction * mask.size)
        if what.keep_largest:
            mask = generic_filter_components(mask, _largest)
    if what.fill_holes:
        from scipy.ndimage import binary_fill_holes

        mask = binary_fill_holes(mask)
    return mask


def _largest(components: list[int], areas: list[int]) -> list[int]:
    """Of equally large components the first in reading order: acvl-utils' own `remove_all_but_largest_component` keeps all."""
    return [components[int(np.argmax(areas))]] if components else []
