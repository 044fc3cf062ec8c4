"""Post-processing per class: drop small objects, keep the largest object, fill holes."""

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

    Dropped pixels become background. Only background pixels are filled, with the class's value; for regions, with the
    value the region paints.
    """
    if not chosen:
        return labels
    result: Array = labels.copy()
    for index, (name, member) in enumerate(scheme.foreground.items()):
        if name not in chosen:
            continue
        mask = np.isin(result, member)
        cleaned = clean(mask, chosen[name])
        result[mask & ~cleaned] = 0
        result[cleaned & ~mask & (result == 0)] = scheme.paint[index] if scheme.regions else member[0]
    return result


def clean(mask: Array, options: PostProcessing) -> Array:
    """A boolean mask (H, W) after one class's post-processing. Objects are 8-connected, holes 4-connected."""
    # Imported here: they take up to half a second, and most predictions need neither.
    if options.min_object_fraction or options.keep_largest:
        from acvl_utils.morphology.morphology_helper import generic_filter_components, remove_components

        if options.min_object_fraction:
            mask = remove_components(mask, options.min_object_fraction * mask.size)
        if options.keep_largest:
            mask = generic_filter_components(mask, _largest)
    if options.fill_holes:
        from scipy.ndimage import binary_fill_holes

        mask = binary_fill_holes(mask)
    return mask


def _largest(components: list[int], areas: list[int]) -> list[int]:
    """The largest component, the first of equals. acvl-utils' `remove_all_but_largest_component` keeps all equals."""
    return [components[int(np.argmax(areas))]] if components else []
