"""Compares a heat map with the true region: fractions of the heat inside it, in a ring around it, and elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

# Width of the ring as a fraction of the image's shorter side.
RING = 0.05


def saliency_metrics(heat: NDArray[np.floating[Any]], region: NDArray[np.bool_]) -> tuple[float, float, float, int]:
    """Fractions of the heat inside the region, in the ring and outside (sum 1), and the ring's width in pixels.

    heat: (H, W), not negative; region: (H, W). NaN without heat or without region.
    """
    width = max(1, round(RING * min(region.shape)))
    total = float(heat.sum())
    if not total > 0 or not region.any():
        return math.nan, math.nan, math.nan, width
    dilated = distance_transform_edt(~region) <= width
    inside, ring = float(heat[region].sum()) / total, float(heat[dilated & ~region].sum()) / total
    return inside, ring, max(0.0, 1 - inside - ring), width
