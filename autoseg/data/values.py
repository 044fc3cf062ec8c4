"""The range of stored values, and the way back to their type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Statistics use every fourth pixel of every fourth row.
STRIDE = 4


def value_range(channel: Array) -> tuple[float, float]:
    """0.5 percentile of values (H, W) or (H, W, C), and its distance to the 99.5 percentile; 1 for constant values."""
    low, high = np.percentile(channel[::STRIDE, ::STRIDE], (0.5, 99.5))
    return float(low), float(high - low) or 1.0


def to_stored_type(values: Array, dtype: np.dtype[Any]) -> Array:
    """Rounded and clipped for unsigned types."""
    if dtype.kind == "u":
        return np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype, copy=False)
