"""Tiled inference of an image too large for memory: reads rows, yields rows of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.inference.engine import Engine
from autoseg.inference.tiles import TileGrid, profile, weight_sum
from autoseg.schema.plan import Normalisation

# Rows first..last of an image as (rows, W, C) stored values.
ReadRows = Callable[[int, int], NDArray[Any]]
_BAND = 64


def can_stream(engine: Engine, size: tuple[int, int]) -> bool:
    """Whether the engine works on original pixels, in tiles not larger than `size`."""
    preprocessing, patch = engine.preprocessing, engine.model_plan.input_size
    keeps_pixels = preprocessing.geometry == "patch" and preprocessing.scale == 1.0 and preprocessing.spacing is None
    return keeps_pixels and size[0] >= patch[0] and size[1] >= patch[1]


def stream(engine: Engine, size: tuple[int, int], read: ReadRows) -> Iterator[Tensor]:
    """Probabilities (K, rows, W) float32 on the CPU, from top to bottom; rows are yielded once all their tiles are done.

    Together they equal `Engine.probabilities` of the whole image. Memory holds one row of tiles.
    """
    grid = TileGrid.of(size, engine.model_plan.input_size)
    tops, lefts = (sorted({corner[axis] for corner in grid.corners}) for axis in (0, 1))
    rows, columns = (profile(length) for length in grid.patch)
    row_weights, column_weights = weight_sum(tops, rows, size[0]), weight_sum(lefts, columns, size[1])
    statistics = _statistics(engine.model_plan.normalisation, size, read)
    total = torch.zeros(engine.scheme.outputs, grid.patch[0], size[1])
    for index, top in enumerate(tops):
        strip = read(top, top + grid.patch[0])
        for start in range(0, len(lefts), engine.batch_size):
            batch = lefts[start : start + engine.batch_size]
            tiles = engine.tiles([strip[:, left : left + grid.patch[1]] for left in batch], statistics)
            for left, tile in zip(batch, tiles, strict=True):
                total[:, :, left : left + grid.patch[1]] += tile.cpu() * rows[:, None] * columns
        num_rows = (tops[index + 1] if index + 1 < len(tops) else size[0]) - top
        yield total[:, :num_rows] / row_weights[top : top + num_rows, None] / column_weights
        total[:, : grid.patch[0] - num_rows] = total[:, num_rows:].clone()
        total[:, grid.patch[0] - num_rows :] = 0


def _statistics(normalisation: Normalisation, size: tuple[int, int], read: ReadRows) -> Tensor | None:
    """`image_statistics` (1, 2, C), computed in bands of rows; None if the plan's numbers are used."""
    if normalisation.scheme != "image":
        return None
    sums, squares, largest = 0.0, 0.0, 0.0
    for start in range(0, size[0], _BAND):
        values = read(start, min(start + _BAND, size[0])).astype(np.float64)
        if normalisation.lower:
            values = np.clip(values, normalisation.lower, normalisation.upper)
        sums = sums + values.sum((0, 1))
        squares = squares + (values**2).sum((0, 1))
        largest = np.maximum(largest, np.abs(values).max((0, 1)))
    mean = np.asarray(sums) / (size[0] * size[1])
    std = np.sqrt(np.maximum(np.asarray(squares) / (size[0] * size[1]) - mean**2, 0.0))
    std = np.where(std > 1e-6 * np.asarray(largest), std, 1.0)
    return torch.from_numpy(np.stack([mean, std])[None].astype(np.float32))
