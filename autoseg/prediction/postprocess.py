"""What can be done to a mask after the network: drop specks, keep the largest object, fill holes, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
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
    if what.specks or what.keep_largest:
        mask = _objects(mask, what)
    return _filled(mask) if what.fill_holes else mask


def _objects(mask: Array, what: PostProcessing) -> Array:
    count, numbered, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    kept = areas >= what.specks * mask.size
    kept[0] = False
    if what.keep_largest and count > 1:
        largest = 1 + int(areas[1:].argmax())
        kept &= np.arange(count) == largest
    found: Array = kept[numbered]
    return found


def _filled(mask: Array) -> Array:
    count, numbered = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    outside = np.zeros(count, bool)
    for edge in (numbered[0], numbered[-1], numbered[:, 0], numbered[:, -1]):
        outside[edge] = True
    outside[0] = False
    holes: Array = ~(outside[numbered] | mask)
    return mask | holes
