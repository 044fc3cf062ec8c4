"""Distances between the borders of two masks, exact, in the units of `spacing`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from autoseg.metrics.rules import UNDEFINED, distance_is_defined

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]
# Searching a tree takes time with the number of border pixels, the distance transform with the area: a smooth object of
# a million pixels has a thousand border pixels, noise half a million.
_TREE_BELOW = 100_000


@dataclass(frozen=True)
class SurfaceScore:
    """Metrics of two borders, see `rules.DEFINITIONS`; distances in the units of the spacing, nsd a share."""

    hd95: float
    hd95_pooled: float
    asd: float
    nsd: float


NOWHERE = SurfaceScore(UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED)
# One mask only: no border pixel lies near one of the other.
_APART = SurfaceScore(UNDEFINED, UNDEFINED, UNDEFINED, 0.0)


def surface_score(
    prediction: Mask, reference: Mask, spacing: tuple[float, float] = (1.0, 1.0), tolerance: float = 2.0
) -> SurfaceScore:
    """All metrics of the borders of two masks (H, W) from one measurement of their distances.

    spacing: (row, column). tolerance: of nsd, in the units of the spacing. Raises ValueError where the shapes differ.
    """
    distances = border_distances(prediction, reference, spacing)
    if distances is None:
        return _APART if prediction.any() or reference.any() else NOWHERE
    together = np.concatenate(distances)
    return SurfaceScore(
        hd95=float(max(np.percentile(one, 95) for one in distances)),
        hd95_pooled=float(np.percentile(together, 95)),
        asd=float(together.mean()),
        nsd=float(np.count_nonzero(together <= tolerance) / len(together)),
    )


def hd95(prediction: Mask, reference: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The greater of the two directed 95th percentiles of border distances (MONAI's and Metrics Reloaded's HD95).

    prediction, reference: (H, W) bool. spacing: (row, column). Undefined (not-a-number) where either is empty. Papers that
    used medpy pool both directions before taking the percentile and get another number.
    """
    return surface_score(prediction, reference, spacing).hd95


def border_distances(
    prediction: Mask, reference: Mask, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Distances, Distances] | None:
    """Distance of each border pixel to the other mask's nearest one: of the prediction's and of the reference's pixels.

    None where a distance is undefined. Raises ValueError where the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    if not distance_is_defined(bool(prediction.any()), bool(reference.any())):
        return None
    window = joint_window(prediction, reference)
    first, second = border(prediction[window]), border(reference[window])
    if np.count_nonzero(first) + np.count_nonzero(second) > _TREE_BELOW:
        return _by_transform(first, second, spacing), _by_transform(second, first, spacing)
    return _by_tree(first, second, spacing), _by_tree(second, first, spacing)


def border(mask: Mask) -> Mask:
    """Pixels of the mask (H, W) with a 4-neighbour outside it; the image's edge counts as outside."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inner


def joint_window(prediction: Mask, reference: Mask) -> tuple[slice, slice]:
    """(rows, columns) of the smallest rectangle around two masks that are not both empty; beyond it lies background or the
    image's edge, and both make a border."""
    rows = np.flatnonzero(prediction.any(axis=1) | reference.any(axis=1))
    columns = np.flatnonzero(prediction.any(axis=0) | reference.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _by_tree(origin: Mask, target: Mask, spacing: tuple[float, float]) -> Distances:
    # Where borders coincide the distance is known: only the others need a search.
    searched = np.argwhere(origin & ~target) * spacing
    distances = np.zeros(np.count_nonzero(origin))
    if len(searched):
        tree = cKDTree(np.argwhere(target) * spacing, balanced_tree=False, compact_nodes=False)
        distances[: len(searched)] = tree.query(searched)[0]
    return distances


def _by_transform(origin: Mask, target: Mask, spacing: tuple[float, float]) -> Distances:
    return np.asarray(distance_transform_edt(~target, sampling=spacing))[origin]
