"""Images larger than the network's input: overlapping tiles, blended with Gaussian weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from numpy.typing import NDArray
from torch import Tensor

STEP = 0.5
# Standard deviation as a fraction of the tile: its edge is four standard deviations from the centre.
SIGMA = 1 / 8


def starts(length: int, patch: int, step: float = STEP) -> tuple[int, ...]:
    """First pixels of evenly spread tiles that cover `length` pixels, with distances of at most `step * patch`."""
    if length <= patch:
        return (0,)
    count = math.ceil((length - patch) / (patch * step)) + 1
    return tuple(round(index * (length - patch) / (count - 1)) for index in range(count))


def profile(patch: int) -> Tensor:
    """Gaussian weights (patch,) along one axis; a pixel's weight is the product of both axes."""
    position = torch.arange(patch, dtype=torch.float32) - (patch - 1) / 2
    return torch.exp(-0.5 * (position / (patch * SIGMA)) ** 2)


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Positions of the tiles of one image. size, patch: (height, width). before: padding at the top and on the left."""

    size: tuple[int, int]
    patch: tuple[int, int]
    padded: tuple[int, int]
    before: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, size: tuple[int, int], patch: tuple[int, int], step: float = STEP) -> TileGrid:
        """Tiles of an image of `size`. An image smaller than the patch is padded evenly on both sides."""
        padded = (max(size[0], patch[0]), max(size[1], patch[1]))
        before = ((padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2)
        tops, lefts = starts(padded[0], patch[0], step), starts(padded[1], patch[1], step)
        corners = tuple((top, left) for top in tops for left in lefts)
        return cls(size=size, patch=patch, padded=padded, before=before, corners=corners)

    def pad(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """The image (H, W, C), reflect-padded to `padded`; unchanged if it is large enough."""
        padded: NDArray[np.generic] = pad_nd_image(image, (*self.padded, image.shape[2]), mode="reflect")
        return padded

    def crop(self, padded: NDArray[np.generic], corner: tuple[int, int]) -> NDArray[np.generic]:
        """The tile (h, w, C) at a corner, a view."""
        return padded[corner[0] : corner[0] + self.patch[0], corner[1] : corner[1] + self.patch[1]]


class TileAccumulator:
    """Weighted sum of the tiles of one image, (K, H, W) float32.

    Tiles lie on a grid and weights are products, so the sum of weights is a product of two sums. No weight map is stored.
    """

    def __init__(self, grid: TileGrid, outputs: int, device: torch.device) -> None:
        self._grid = grid
        self._total = torch.zeros((outputs, *grid.padded), dtype=torch.float32, device=device)
        self._rows, self._columns = (profile(length).to(device) for length in grid.patch)
        self._num_remaining = len(grid.corners)

    def add(self, corner: tuple[int, int], probabilities: Tensor) -> bool:
        """Add a tile (K, h, w). Returns True for the last one."""
        top, left = corner
        height, width = self._grid.patch
        weighted = probabilities.to(self._total.device) * self._rows[:, None] * self._columns
        self._total[:, top : top + height, left : left + width] += weighted
        self._num_remaining -= 1
        return self._num_remaining == 0

    def finish(self) -> Tensor:
        """The blended probabilities (K, H, W) of the image without its padding, on the CPU."""
        tops = sorted({top for top, _ in self._grid.corners})
        lefts = sorted({left for _, left in self._grid.corners})
        self._total /= weight_sum(tops, self._rows, self._grid.padded[0])[:, None]
        self._total /= weight_sum(lefts, self._columns, self._grid.padded[1])
        (top, left), (height, width) = self._grid.before, self._grid.size
        # A device that is nearly full cannot hold a copy of the part.
        return self._total.cpu()[:, top : top + height, left : left + width].contiguous()


def weight_sum(first_pixels: list[int], weights: Tensor, length: int) -> Tensor:
    """Sum of the weights (patch,) of tiles that start at these pixels of one axis: (length,)."""
    total = torch.zeros(length, dtype=torch.float32, device=weights.device)
    for start in first_pixels:
        total[start : start + len(weights)] += weights
    return total
