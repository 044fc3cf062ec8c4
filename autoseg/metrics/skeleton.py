"""Thin structures: how much of their middle lines is found (clDice)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import UNDEFINED
from autoseg.metrics.surface import border, joint_window

Mask = NDArray[np.bool_]
# A class is thin where its mean width is at most this share of the image's shorter side.
THIN = 0.02


def cldice(prediction: Mask, reference: Mask) -> float:
    """Centreline Dice of two masks (H, W) (Shit et al., CVPR 2021): 0 where one is empty, undefined where both are.

    Skeletons are those of Zhang and Suen, as scikit-image thins them. Raises ValueError where the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    if not prediction.any() or not reference.any():
        return 0.0 if prediction.any() or reference.any() else UNDEFINED
    # Half a second to bring in, and most sets have no thin class.
    from skimage.morphology import skeletonize

    window = joint_window(prediction, reference)
    predicted, referred = prediction[window], reference[window]
    precision, recall = _inside(skeletonize(predicted), referred), _inside(skeletonize(referred), predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def extent(mask: Mask) -> tuple[int, int]:
    """Pixels of a mask (H, W) and of its border: twice the first over the second is the mean width."""
    area = int(np.count_nonzero(mask))
    return area, int(np.count_nonzero(border(mask[joint_window(mask, mask)]))) if area else 0


def _inside(skeleton: NDArray[Any], mask: Mask) -> float:
    return float(np.count_nonzero(skeleton & mask) / np.count_nonzero(skeleton))
