"""Images larger than what the network sees: overlapping tiles, blended with Gaussian weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from numpy.typing import NDArray
from torch import Tensor

STEP = 0.5
# Weight of a tile's edge against its centre: four standard deviations out.
_SIGMA = 1 / 8


def starts(length: int, patch: int, step: float = STEP) -> tuple[int, ...]:
    """First pixels of evenly spread tiles that cover `length` pixels, at most `step * patch` apart."""
    if length <= patch:
        return (0,)
    count = math.ceil((length - patch) / (patch * step)) + 1
    return tuple(round(index * (length - patch) / (count - 1)) for index in range(count))


def profile(patch: int) -> Tensor:
    """Gaussian weights (patch,) along one axis; the weight of a tile's pixel is the product of the two axes'."""
    position = torch.arange(patch, dtype=torch.float32) - (patch - 1) / 2
    return torch.exp(-0.5 * (position / (patch * _SIGMA)) ** 2)


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Where the tiles of one image lie. size, patch: (height, width). before: rows and columns of padding put before."""

    size: tuple[int, int]
    patch: tuple[int, int]
    padded: tuple[int, int]
    before: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, size: tuple[int, int], patch: tuple[int, int], step: float = STEP) -> TileGrid:
        """Tiles for an image of `size`; an image smaller than the patch is padded evenly on both sides."""
        padded = (max(size[0], patch[0]), max(size[1], patch[1]))
        before = ((padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2)
        tops, lefts = starts(padded[0], patch[0], step), starts(padded[1], patch[1], step)
        corners = tuple((top, left) for top in tops for left in lefts)
        return cls(size=size, patch=patch, padded=padded, before=before, corners=corners)

    def pad(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """The image (H, W, C) at `padded` size, mirrored at its edges; as it is where it is large enough."""
        padded: NDArray[np.generic] = pad_nd_image(image, (*self.padded, image.shape[2]), mode="reflect")
        return padded

    def crop(self, padded: NDArray[np.generic], corner: tuple[int, int]) -> NDArray[np.generic]:
        """The tile (h, w, C) at a corner, a view."""
        return padded[corner[0] : corner[0] + self.patch[0], corner[1] : corner[1] + self.patch[1]]


class TileAccumulator:
    """Weighted sum of the tiles of one image, (K, H, W) float32, and its weights, which never stand in memory as a map.

    Tiles lie on a grid and their weights are products, so the sum of weights is a product of two sums as well.
    """

    def __init__(self, layout: TileGrid, outputs: int, device: torch.device) -> None:
        self._layout = layout
        self._total = torch.zeros((outputs, *layout.padded), dtype=torch.float32, device=device)
        self._rows, self._columns = (profile(length).to(device) for length in layout.patch)
        self._left = len(layout.corners)

    def add(self, corner: tuple[int, int], probabilities: Tensor) -> bool:
        """Add a tile (K, h, w); True when it was the last one."""
        top, left = corner
        height, width = self._layout.patch
        weighted = probabilities.to(self._total.device) * self._rows[:, None] * self._columns
        self._total[:, top : top + height, left : left + width] += weighted
        self._left -= 1
        return self._left == 0

    def finish(self) -> Tensor:
        """The blended probabilities (K, H, W) of the image without its padding, on the CPU."""
        tops = sorted({top for top, _ in self._layout.corners})
        lefts = sorted({left for _, left in self._layout.corners})
        self._total /= weight_sum(tops, self._rows, self._layout.padded[0])[:, None]
        self._total /= weight_sum(lefts, self._columns, self._layout.padded[1])
        (top, left), (height, width) = self._layout.before, self._layout.size
        return self._total[:, top : top + height, left : left + width].contiguous().cpu()


def weight_sum(begins: list[int], weights: Tensor, length: int) -> Tensor:
    """Sum of the weights (patch,) of tiles that begin at these pixels of one axis: (length,)."""
    total = torch.zeros(length, dtype=torch.float32, device=weights.device)
    for begin in begins:
        total[begin : begin + len(weights)] += weights
    return total
