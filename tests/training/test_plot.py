from __future__ import annotations

import numpy as np
from PIL import Image

from autoseg.training.plot import NAME, draw


def row(epoch: int, validated: bool = True) -> dict[str, float]:
    known = {"epoch": epoch, "loss": 2 / epoch, "learning_rate": 1e-3 / epoch, "seconds": 9.0, "data_wait": 0.1}
    return known | ({"micro_dice": 0.55, "class_mean_dice": 0.5, "dice_a": 0.4, "validation_seconds": 2.0} if validated else {})


def test_plot_is_drawn_for_any_number_of_epochs(tmp_path):
    sizes = set()
    for rows in ([], [row(1)], [row(1, False), row(2)], [row(epoch) for epoch in range(1, 30)]):
        draw(tmp_path, rows, ("a", "b"), "Dataset001_X, unet, fold 0")
        pixels = np.asarray(Image.open(tmp_path / NAME).convert("RGB"))
        sizes.add(pixels.shape)
        coloured = (pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 60).mean()
        assert (coloured > 0.001) == bool(rows)
    assert len(sizes) == 1
