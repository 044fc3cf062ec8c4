"""A heat map against the truth: how much of it lies inside the true region, in a ring around it, and elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

# The ring is as wide as this share of the image's shorter side.
RING = 0.05


def saliency_metrics(heat: NDArray[np.floating[Any]], region: NDArray[np.bool_]) -> tuple[float, float, float, int]:
    """Shares of the heat inside, in the ring and outside (they add up to 1), and the ring's width in pixels.

    heat: (H, W), not negative; region: (H, W). Not-a-number where there is no heat or no region.
    """
    width = max(1, round(RING * min(region.shape)))
    total = float(heat.sum())
    if not total > 0 or not region.any():
        return math.nan, math.nan, math.nan, width
    near = distance_transform_edt(~region) <= width
    inside, around = float(heat[region].sum()) / total, float(heat[near & ~region].sum()) / total
    return inside, around, max(0.0, 1 - inside - around), width
