"""Weights computed from a parameter's official name and shape, so that no weights are stored.

Two rules: one for the official code of the specialists, one for the generalists.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection

import numpy as np

Array = np.ndarray


def _normal(name: str, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def specialist(name: str, shape: tuple[int, ...]) -> Array:
    """He scaling for matrices; one plus noise for norm weights; a few names with a special scale."""
    noise = _normal(name, shape)
    leaf, single = name.rsplit(".", 1)[-1], np.float32
    special = {"spline_scaler": (1.0, 0.1), "A_logs": (0.0, 0.5), "dt_projs_bias": (-3.0, 0.5)}
    if "pos_embed" in name:
        return single(0.5) * noise
    if leaf in special:
        centre, spread = special[leaf]
        return single(centre) + single(spread) * noise
    if len(shape) <= 1:
        return single(1.0 if leaf in ("weight", "Ds") else 0.0) + single(0.1) * noise
    fan_in = shape[-1] if leaf in ("x_proj_weight", "dt_projs_weight") else int(np.prod(shape[1:]))
    return single(math.sqrt(2.0 / fan_in)) * noise


def generalist(
    name: str, shape: tuple[int, ...], norm_weights: Collection[str], layer_scales: Collection[str]
) -> Array:
    """Unit gain for matrices; norm weights near one, layer scales near 0.05, everything else near zero."""
    noise = _normal(name, shape)
    if len(shape) >= 2:
        return noise * np.float32(1 / math.sqrt(np.prod(shape[1:])))
    if name in norm_weights:
        return 1 + np.float32(0.02) * noise
    centre = 0.05 if name in layer_scales else 0.0
    return np.float32(centre) + np.float32(0.02) * noise


def golden_input(shape: tuple[int, ...]) -> Array:
    """The input of all golden outputs, (B, C, H, W)."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
