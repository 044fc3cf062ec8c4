"""Tiny images and masks, and folders of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

SIZE = (24, 32)


def colours(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_LINEAR)


def box(value: int = 1, size: tuple[int, int] = SIZE, at: int = 4) -> np.ndarray:
    """(H, W) uint8 with a box of 6 x 8 pixels."""
    mask = np.zeros(size, np.uint8)
    mask[at : at + 6, at : at + 8] = value
    return mask


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(array).save(path, **options)
    return path


def folders(root: Path, stems: list[str], value: int = 1, image: str = ".png", suffix: str = "") -> tuple[Path, Path]:
    """images/<stem>.png and masks/<stem><suffix>.png below root."""
    for seed, stem in enumerate(stems):
        save(root / "images" / f"{stem}{image}", colours(seed))
        save(root / "masks" / f"{stem}{suffix}.png", box(value))
    return root / "images", root / "masks"
