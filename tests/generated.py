"""Tiny generated datasets of three kinds.

`lesion`: RGB, one lesion class, a blob on skin. `polyps`: RGB, two classes of which one is rare. `heart`: gray 16-bit,
nested chambers, two slices per patient. Image sizes differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

KINDS = ("lesion", "polyps", "heart")


@dataclass(frozen=True)
class Kind:
    """Labels and patient pattern of a kind."""

    labels: tuple[str, ...]
    groups: str | None


SPECIFICATION = {
    "lesion": Kind(("background", "lesion"), None),
    "polyps": Kind(("background", "neoplastic", "non_neoplastic"), None),
    "heart": Kind(("background", "right_ventricle", "myocardium", "left_ventricle"), r"(patient\d+)"),
}


def draw(kind: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ((H, W, 3) uint8 RGB or (H, W) uint16) and label map (H, W) uint8 of one case."""
    rng = np.random.default_rng((KINDS.index(kind), index))
    height, width = (int(side) for side in rng.integers(56, 81, size=2))
    label = np.zeros((height, width), np.uint8)
    centre = (int(rng.integers(width // 3, 2 * width // 3)), int(rng.integers(height // 3, 2 * height // 3)))
    radius = int(rng.integers(9, 15))
    if kind == "heart":
        cv2.circle(label, (max(centre[0] - radius, 4), centre[1]), radius // 2 + 2, 1, -1)
        cv2.circle(label, centre, radius, 2, -1)
        cv2.circle(label, centre, radius // 2, 3, -1)
        values = np.array([2000, 9000, 5000, 12000], np.float32)[label]
        noisy = cv2.GaussianBlur(values, (3, 3), 0) + rng.normal(0, 400, label.shape)
        return noisy.clip(0, 65535).astype(np.uint16), label
    value = 2 if kind == "polyps" and index % 4 == 3 else 1
    cv2.ellipse(label, centre, (radius, radius - 3), float(rng.integers(0, 180)), 0, 360, value, -1)
    colours = np.array([[205, 150, 130], [120, 60, 50], [150, 140, 60]], np.float32)
    noisy = cv2.GaussianBlur(colours[label], (3, 3), 0) + rng.normal(0, 8, (*label.shape, 1))
    return noisy.clip(0, 255).astype(np.uint8), label


def case_name(kind: str, index: int) -> str:
    return f"patient{index // 2:03d}_slice{index % 2}" if kind == "heart" else f"{kind}_{index:03d}"


def write_folders(folder: Path, kind: str, cases: int) -> tuple[Path, Path]:
    """Write images/ and masks/ with PNG files of the same names. Returns both folders."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for index in range(cases):
        image, label = draw(kind, index)
        name = f"{case_name(kind, index)}.png"
        cv2.imwrite(str(images / name), image[..., ::-1] if image.ndim == 3 else image)
        cv2.imwrite(str(masks / name), label)
    return images, masks
