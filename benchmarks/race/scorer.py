"""A scorer of its own: neither autoseg's metrics nor nnU-Net's. NumPy and SciPy, straight from the definitions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

METRICS = ("dice", "hd95", "nsd")
# Pixels within which two borders agree.
TOLERANCE = 2.0
# Of one class; None where it is in neither mask.
Scores = dict[str, float] | None
_CROSS = generate_binary_structure(2, 1)


def score_class(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Scores:
    """Dice, HD95 and NSD of two masks (H, W), distances in pixels.

    None if both are empty. If one is, Dice and NSD are 0 and HD95 is the image's diagonal. HD95 is the greater of both
    directions' 95th percentiles, NSD the fraction of both borders' pixels within `TOLERANCE` of the other border. Raises
    ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the reference {reference.shape}")
    sizes = int(prediction.sum()), int(reference.sum())
    if not any(sizes):
        return None
    if not all(sizes):
        return {"dice": 0.0, "hd95": math.hypot(*reference.shape), "nsd": 0.0}
    borders = [mask & ~binary_erosion(mask, _CROSS) for mask in (prediction, reference)]
    distances = [distance_transform_edt(~other)[own] for own, other in (borders, borders[::-1])]
    near = sum(int((one <= TOLERANCE).sum()) for one in distances)
    return {
        "dice": 2 * int((prediction & reference).sum()) / sum(sizes),
        "hd95": float(max(np.percentile(one, 95) for one in distances)),
        "nsd": near / sum(len(one) for one in distances),
    }


def score_case(prediction: Path, reference: Path, labels: Mapping[str, int]) -> dict[str, Scores]:
    """Scores of each class of two mask files whose pixels are class ids. labels: name -> id, without the background."""
    masks = []
    for path in (prediction, reference):
        with Image.open(path) as image:
            masks.append(np.asarray(image))
    return {name: _rounded(score_class(masks[0] == value, masks[1] == value)) for name, value in labels.items()}


def score_cases(
    predictions: Path, references: Path, cases: Iterable[str], labels: Mapping[str, int]
) -> dict[str, dict[str, Scores]]:
    """Scores of all cases; masks are <case>.png. Raises FileNotFoundError if one is missing."""
    return {case: score_case(predictions / f"{case}.png", references / f"{case}.png", labels) for case in cases}


def case_mean(scores: Mapping[str, Scores], metric: str) -> float | None:
    """Mean over the classes that are in one of the two masks; None if there is none."""
    values = [one[metric] for one in scores.values() if one is not None]
    return sum(values) / len(values) if values else None


def _rounded(scores: Scores) -> Scores:
    return None if scores is None else {name: round(value, 5) for name, value in scores.items()}
