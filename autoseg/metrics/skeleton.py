"""Centreline Dice of thin structures (clDice)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import UNDEFINED
from autoseg.metrics.surface import border, joint_window

Mask = NDArray[np.bool_]
# A class is thin if its mean width is at most this fraction of the image's shorter side.
MAX_THIN_WIDTH = 0.02


def cldice(prediction: Mask, reference: Mask) -> float:
    """Centreline Dice of two masks (H, W) (Shit et al., CVPR 2021): 0 if one is empty, undefined if both are.

    Skeletons by the algorithm of Zhang and Suen (scikit-image). Raises ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    if not prediction.any() or not reference.any():
        return 0.0 if prediction.any() or reference.any() else UNDEFINED
    # The import takes half a second, and most sets have no thin class.
    from skimage.morphology import skeletonize

    window = joint_window(prediction, reference)
    predicted, expected = prediction[window], reference[window]
    precision, recall = _fraction_inside(skeletonize(predicted), expected), _fraction_inside(skeletonize(expected), predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def area_and_border(mask: Mask) -> tuple[int, int]:
    """Number of pixels of a mask (H, W) and of its border. The mean width is 2 * area / border."""
    area = int(np.count_nonzero(mask))
    return area, int(np.count_nonzero(border(mask[joint_window(mask, mask)]))) if area else 0


def _fraction_inside(skeleton: NDArray[Any], mask: Mask) -> float:
    return float(np.count_nonzero(skeleton & mask) / np.count_nonzero(skeleton))
