"""Tiles of an image that is too large to stand in memory: rows come in, rows of probabilities go out."""

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
    """Whether the engine works on pixels as they are, in tiles that fit into an image of `size`."""
    preparation, patch = engine.preparation, engine.model_plan.input_size
    asis = preparation.geometry == "patch" and preparation.scale == 1.0 and preparation.spacing is None
    return asis and size[0] >= patch[0] and size[1] >= patch[1]


def stream(engine: Engine, size: tuple[int, int], read: ReadRows) -> Iterator[Tensor]:
    """Probabilities (K, rows, W) float32 on the CPU, from the top, as soon as no further tile touches them.

    Together they are what `Engine.probabilities` gives of the whole image; memory holds one row of tiles.
    """
    layout = TileGrid.of(size, engine.model_plan.input_size)
    tops, lefts = (sorted({corner[axis] for corner in layout.corners}) for axis in (0, 1))
    rows, columns = (profile(length) for length in layout.patch)
    down, across = weight_sum(tops, rows, size[0]), weight_sum(lefts, columns, size[1])
    statistics = _statistics(engine.model_plan.normalisation, size, read)
    total = torch.zeros(engine.scheme.outputs, layout.patch[0], size[1])
    for place, top in enumerate(tops):
        strip = read(top, top + layout.patch[0])
        for start in range(0, len(lefts), engine.batch_size):
            chosen = lefts[start : start + engine.batch_size]
            found = engine.tiles([strip[:, left : left + layout.patch[1]] for left in chosen], statistics)
            for left, tile in zip(chosen, found, strict=True):
                total[:, :, left : left + layout.patch[1]] += tile.cpu() * rows[:, None] * columns
        done = (tops[place + 1] if place + 1 < len(tops) else size[0]) - top
        yield total[:, :done] / down[top : top + done, None] / across
        total[:, : layout.patch[0] - done] = total[:, done:].clone()
        total[:, layout.patch[0] - done :] = 0


def _statistics(normalisation: Normalisation, size: tuple[int, int], read: ReadRows) -> Tensor | None:
    """`image_statistics` of an image that comes in bands: (1, 2, C); None where the plan's numbers are used."""
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
