"""A trained network over prepared images: batches, mirrored views, tiles, probabilities. Training validates through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.inference import resample_to_original
from autoseg.inference.precision import autocast
from autoseg.inference.tiles import TileAccumulator, TileGrid
from autoseg.preprocessing.normalise import image_statistics, normalise
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, PreprocessingConfig

Prepared = NDArray[np.generic]
# A canvas above this size is summed up in ordinary memory, not on the device.
_CANVAS_ON_DEVICE = 512 << 20


class Engine:
    """What a network says of prepared images.

    network: (B, C, H, W) -> logits (B, K, H, W); it must lie on `device`. mirror: axes (0 rows, 1 columns) whose mirrored
    views are averaged in, all combinations of them. Probabilities, not logits, are averaged: the mean of logits makes
    every view as sure as the surest.
    """

    def __init__(
        self,
        network: nn.Module,
        model_plan: ModelPlan,
        preparation: PreprocessingConfig,
        scheme: LabelScheme,
        device: torch.device | str = "cpu",
        mirror: tuple[int, ...] = (),
    ) -> None:
        self.network = network
        self.model_plan = model_plan
        self.preparation = preparation
        self.scheme = scheme
        self.device = torch.device(device)
        axes = tuple(axis + 2 for axis in mirror)
        self._views = [chosen for count in range(1, len(axes) + 1) for chosen in combinations(axes, count)]
        # What fitted in training, with gradients, fits here.
        self.batch_size = max(1, model_plan.batch_size // max(1, model_plan.accumulate))

    def probabilities(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        """Probabilities (K, h, w) float32, on the CPU, of each prepared image (h, w, C) of stored values.

        Softmax over classes, or a sigmoid for each region. Whole images of equal size go through the network together;
        images of a "patch" preparation are cut into tiles of `input_size`, batched over all images given.
        """
        with self._evaluating(), torch.no_grad(), autocast(self.model_plan.precision, self.device):
            return self._tiled(prepared) if self.preparation.geometry == "patch" else self._whole(prepared)

    def tiles(self, stored: Sequence[Prepared], statistics: Tensor | None = None) -> Tensor:
        """Probabilities (B, K, h, w) of tiles (h, w, C) of one image. statistics: its own (1, 2, C), see `normalise`."""
        with self._evaluating(), torch.no_grad(), autocast(self.model_plan.precision, self.device):
            return self._forward(stored, [statistics] * len(stored))

    def label_map(self, probabilities: Tensor, size: tuple[int, int]) -> NDArray[np.integer]:
        """Label map (H, W) of `size` from probabilities (K, h, w); see `resample_to_original.label_map`."""
        return resample_to_original.label_map(probabilities, self.scheme, size)

    def num_batch_items(self, prepared: Prepared) -> int:
        """How many items of a batch an image (h, w, C) is worth: 1 for a whole image, else its number of tiles."""
        if self.preparation.geometry == "resize":
            return 1
        return len(TileGrid.of(_size(prepared), self.model_plan.input_size).corners)

    def _whole(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(prepared):
            by_size.setdefault(_size(image), []).append(index)
        found: dict[int, Tensor] = {}
        for indices in by_size.values():
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                result = self._forward([prepared[index] for index in batch]).cpu()
                found.update(zip(batch, result, strict=True))
        return [found[index] for index in range(len(prepared))]

    def _tiled(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        layouts = [TileGrid.of(_size(image), self.model_plan.input_size) for image in prepared]
        tiles = iter([(index, corner) for index, layout in enumerate(layouts) for corner in layout.corners])
        begun: dict[int, _Begun] = {}
        found: dict[int, Tensor] = {}
        while batch := list(islice(tiles, self.batch_size)):
            for index, _ in batch:
                if index not in begun:
                    begun[index] = self._begin(prepared[index], layouts[index])
            crops = [layouts[index].crop(begun[index].padded, corner) for index, corner in batch]
            known = [begun[index].statistics for index, _ in batch]
            for (index, corner), tile in zip(batch, self._forward(crops, known), strict=True):
                if begun[index].canvas.add(corner, tile):
                    found[index] = begun.pop(index).canvas.finish()
        return [found[index] for index in range(len(prepared))]

    def _begin(self, image: Prepared, layout: TileGrid) -> _Begun:
        needed = 4 * self.scheme.outputs * layout.padded[0] * layout.padded[1]
        device = self.device if needed <= _CANVAS_ON_DEVICE else torch.device("cpu")
        statistics = None
        if self.model_plan.normalisation.scheme == "image":
            # As in training: of the image a tile is cut from, not of the tile, nor of its padding.
            statistics = image_statistics(_batch([image]), self.model_plan.normalisation)
        return _Begun(layout.pad(image), TileAccumulator(layout, self.scheme.outputs, device), statistics)

    def _forward(self, stored: Sequence[Prepared], statistics: Sequence[Tensor | None] = ()) -> Tensor:
        """Probabilities (B, K, h, w) of images of equal size, over all views."""
        known = [one for one in statistics if one is not None]
        together = torch.cat(known).to(self.device) if known else None
        images = normalise(_batch(stored).to(self.device), self.model_plan.normalisation, together)
        total = self._activated(images)
        for axes in self._views:
            total += self._activated(images.flip(axes)).flip(axes)
        return total / (1 + len(self._views)) if self._views else total

    def _activated(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images).float()
        return logits.sigmoid() if self.scheme.regions else logits.softmax(dim=1)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.network.train(was)


@dataclass
class _Begun:
    """An image whose tiles are on their way. statistics: (1, 2, C), see `normalise`."""

    padded: Prepared
    canvas: TileAccumulator
    statistics: Tensor | None


def _size(image: Prepared) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _batch(images: Sequence[Prepared]) -> Tensor:
    """(h, w, C) arrays of equal size as one tensor (B, C, h, w); uint8 stays, other types become float32."""
    stacked = np.stack(images)
    if stacked.dtype != np.uint8:
        stacked = stacked.astype(np.float32, copy=False)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
