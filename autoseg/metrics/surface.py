"""Distances between the borders of two masks, exact (those beyond 2,000 pixels to seven digits), in the units of `spacing`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.metrics.rules import UNDEFINED, distance_is_defined

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]
# Width of the band of Boundary IoU, as a fraction of the image's diagonal.
BAND = 0.02
_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class SurfaceScore:
    """Metrics of two borders, see `rules.DEFINITIONS`; distances in the units of the spacing, nsd and boundary_iou 0 to 1."""

    hd95: float
    hd95_diagonal: float
    hd95_pooled: float
    asd: float
    nsd: float
    boundary_iou: float


UNDEFINED_SURFACE = SurfaceScore(
    hd95=UNDEFINED, hd95_diagonal=UNDEFINED, hd95_pooled=UNDEFINED, asd=UNDEFINED, nsd=UNDEFINED, boundary_iou=UNDEFINED
)


def surface_score(
    prediction: Mask, reference: Mask, spacing: tuple[float, float] = (1.0, 1.0), tolerance: float = 2.0
) -> SurfaceScore:
    """All border metrics of two masks (H, W). The distances are computed once.

    spacing: (row, column). tolerance: of nsd, in the units of the spacing. Raises ValueError if the shapes differ.
    """
    distances = border_distances(prediction, reference, spacing)
    if distances is None:
        return _one_empty(prediction.shape, spacing) if prediction.any() or reference.any() else UNDEFINED_SURFACE
    pooled = np.concatenate(distances)
    hd95 = float(max(np.percentile(one, 95) for one in distances))
    return SurfaceScore(
        hd95=hd95,
        hd95_diagonal=hd95,
        hd95_pooled=float(np.percentile(pooled, 95)),
        asd=float(pooled.mean()),
        nsd=float(np.count_nonzero(pooled <= tolerance) / len(pooled)),
        boundary_iou=boundary_iou(prediction, reference),
    )


def _one_empty(shape: tuple[int, ...], spacing: tuple[float, float]) -> SurfaceScore:
    """Of a mask and an empty one (H, W): no border pixel is near one of the other mask."""
    diagonal = math.hypot(shape[0] * spacing[0], shape[1] * spacing[1])
    return replace(UNDEFINED_SURFACE, hd95_diagonal=diagonal, nsd=0.0, boundary_iou=0.0)


def boundary_iou(prediction: Mask, reference: Mask) -> float:
    """IoU of the bands inside the borders of two masks (H, W): Cheng et al., Boundary IoU, CVPR 2021.

    A band is as wide as a fiftieth of the image's diagonal; the image's edge is a border too. Undefined if both masks are
    empty. Raises ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    if not prediction.any() and not reference.any():
        return UNDEFINED
    width = band_width(prediction.shape)
    window = joint_window(prediction, reference)
    first, second = (_inner_band(mask[window], width) for mask in (prediction, reference))
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


def band_width(shape: tuple[int, ...]) -> int:
    """Pixels of a band along borders in an image (H, W)."""
    return max(1, round(BAND * math.hypot(*shape)))


def _inner_band(mask: Mask, width: int) -> Mask:
    """Pixels of the mask at most `width` pixels (the greater of rows and columns) from a pixel outside."""
    inside = cv2.erode(mask.astype(np.uint8), _NEIGHBOURS, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (inside == 0))


def hd95(prediction: Mask, reference: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The greater of the two directed 95th percentiles of border distances (MONAI's and Metrics Reloaded's HD95).

    prediction, reference: (H, W) bool. spacing: (row, column). Undefined (not-a-number) if either is empty. medpy
    pools both directions before the percentile and gives another number.
    """
    return surface_score(prediction, reference, spacing).hd95


def border_distances(
    prediction: Mask, reference: Mask, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Distances, Distances] | None:
    """Distance of each border pixel to the nearest border pixel of the other mask: (of the prediction's, of the reference's).

    None if either mask is empty. Raises ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    if not distance_is_defined(bool(prediction.any()), bool(reference.any())):
        return None
    window = joint_window(prediction, reference)
    first, second = border(prediction[window]), border(reference[window])
    return _distances(first, second, spacing), _distances(second, first, spacing)


def border(mask: Mask) -> Mask:
    """Pixels of the mask (H, W) with a 4-neighbour outside it; the image's edge counts as outside."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inner


def joint_window(prediction: Mask, reference: Mask) -> tuple[slice, slice]:
    """Bounding box (rows, columns) of the union of two masks that are not both empty. Outside is background or the image's
    edge; both make a border."""
    column, row, width, height = cv2.boundingRect((prediction | reference).view(np.uint8))
    return slice(row, row + height), slice(column, column + width)


def _distances(origin: Mask, target: Mask, spacing: tuple[float, float]) -> Distances:
    """Of each pixel of the origin (H, W) to the nearest one of the target, which is not empty."""
    if spacing[0] != spacing[1]:
        from scipy.ndimage import distance_transform_edt  # here, because few images need it and it takes a while to import

        return np.asarray(distance_transform_edt(~target, sampling=spacing))[origin]
    pixels = cv2.distanceTransform((~target).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[origin]
    # Squares of distances in pixels are whole numbers: this removes the rounding of 32 bits, up to about 2,000 pixels.
    return np.sqrt(np.rint(np.square(pixels, dtype=np.float64))) * spacing[0]
