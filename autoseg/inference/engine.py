"""Applies a network to preprocessed images in batches, with mirrored views and tiles. Also used for validation in training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.inference import activation as activations
from autoseg.inference import resample_to_original
from autoseg.inference.activation import Activation
from autoseg.inference.out_of_memory import within_memory
from autoseg.inference.precision import autocast, tensor_cores
from autoseg.inference.tiles import TileAccumulator, TileGrid
from autoseg.models import registry
from autoseg.preprocessing.normalise import image_statistics, normalise
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, PreprocessingConfig
from autoseg.support.errors import AutosegError

logger = logging.getLogger(__name__)

Prepared = NDArray[np.generic]
# Larger accumulators are kept in the CPU's memory instead of the device's.
_MAX_BYTES_ON_DEVICE = 512 << 20
# On a processor in fp32, more pixels at once take up to a third longer: they leave its caches. So may one image alone.
_PIXELS_AT_ONCE, _FEWEST_AT_ONCE = 1 << 17, 2


class Engine:
    """Probabilities of a network for preprocessed images.

    network: (B, C, H, W) -> logits (B, K, H, W), on `device`. mirror: axes (0 rows, 1 columns) for test-time mirroring; all
    combinations are averaged. Probabilities are averaged, not logits: in a mean of logits the most confident view dominates.
    activation: that of the training; default: softmax for classes, sigmoids for regions. precision: "fp32", "bf16" or "fp16"
    (default: the plan's, as in training).

    batch_size: images or tiles that go through the network at once; halved where they do not fit into the memory. Raises
    AutosegError if not even one does.
    """

    def __init__(
        self,
        network: nn.Module,
        model_plan: ModelPlan,
        preprocessing: PreprocessingConfig,
        scheme: LabelScheme,
        device: torch.device | str = "cpu",
        mirror: tuple[int, ...] = (),
        activation: Activation | None = None,
        precision: str | None = None,
    ) -> None:
        self.network = network
        self.model_plan = model_plan
        self.preprocessing = preprocessing
        self.scheme = scheme
        self.device = torch.device(device)
        self._precision = precision or model_plan.precision
        self._activation = activation or activations.output_activation("", scheme)
        self.memory_format = _memory_format(model_plan, self.device)
        network.to(memory_format=self.memory_format)
        axes = tuple(axis + 2 for axis in mirror)
        self._views = [subset for count in range(1, len(axes) + 1) for subset in combinations(axes, count)]
        # Fits into memory, because it did so in training, with gradients.
        self.batch_size = max(1, model_plan.batch_size // max(1, model_plan.accumulate))
        if self.device.type == "cpu" and self._precision == "fp32":
            at_once = max(_FEWEST_AT_ONCE, _PIXELS_AT_ONCE // math.prod(model_plan.input_size))
            self.batch_size = min(self.batch_size, at_once)

    def probabilities(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        """Probabilities (K, h, w) float32, on the CPU, of each preprocessed image (h, w, C) of stored values.

        Geometry "resize": images of equal size form batches. Geometry
        "patch": images are split into tiles of `input_size`; batches contain tiles of all images.
        """
        with self._inference_mode():
            return self._tiled(prepared) if self.preprocessing.geometry == "patch" else self._whole(prepared)

    def tiles(self, stored: Sequence[Prepared], statistics: Tensor | None = None) -> Tensor:
        """Probabilities (B, K, h, w) of tiles (h, w, C) of one image. statistics: the image's (1, 2, C), see `normalise`."""
        with self._inference_mode():
            return self._forward(stored, [statistics] * len(stored))

    def label_map(self, probabilities: Tensor, size: tuple[int, int]) -> NDArray[np.integer]:
        """Label map (H, W) of `size` from probabilities (K, h, w); see `resample_to_original.label_map`."""
        return resample_to_original.label_map(probabilities, self.scheme, size)

    def num_batch_items(self, prepared: Prepared) -> int:
        """Number of batch items of an image (h, w, C): 1 for a whole image, else its number of tiles."""
        if self.preprocessing.geometry == "resize":
            return 1
        return len(TileGrid.of(_size(prepared), self.model_plan.input_size).corners)

    def _whole(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(prepared):
            by_size.setdefault(_size(image), []).append(index)
        results: dict[int, Tensor] = {}
        for indices in by_size.values():
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                result = self._forward([prepared[index] for index in batch]).cpu()
                results.update(zip(batch, result, strict=True))
        return [results[index] for index in range(len(prepared))]

    def _tiled(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        grids = [TileGrid.of(_size(image), self.model_plan.input_size) for image in prepared]
        tiles = iter([(index, corner) for index, grid in enumerate(grids) for corner in grid.corners])
        started: dict[int, _TiledImage] = {}
        results: dict[int, Tensor] = {}
        while batch := list(islice(tiles, self.batch_size)):
            for index, _ in batch:
                if index not in started:
                    started[index] = self._start(prepared[index], grids[index])
            crops = [grids[index].crop(started[index].padded, corner) for index, corner in batch]
            statistics = [started[index].statistics for index, _ in batch]
            for (index, corner), tile in zip(batch, self._forward(crops, statistics), strict=True):
                if started[index].accumulator.add(corner, tile):
                    results[index] = started.pop(index).accumulator.finish()
        return [results[index] for index in range(len(prepared))]

    def _start(self, image: Prepared, grid: TileGrid) -> _TiledImage:
        num_bytes = 4 * self.scheme.outputs * grid.padded[0] * grid.padded[1]
        accumulator = None
        if num_bytes <= _MAX_BYTES_ON_DEVICE:
            accumulator = within_memory(lambda: TileAccumulator(grid, self.scheme.outputs, self.device))
        accumulator = accumulator or TileAccumulator(grid, self.scheme.outputs, torch.device("cpu"))
        statistics = None
        if self.model_plan.normalisation.scheme == "image":
            # As in training: statistics of the whole image, without its padding.
            statistics = image_statistics(_batch([image]), self.model_plan.normalisation)
        return _TiledImage(grid.pad(image), accumulator, statistics)

    def _forward(self, stored: Sequence[Prepared], statistics: Sequence[Tensor | None] = ()) -> Tensor:
        """Probabilities (B, K, h, w) of images of equal size, over all views; in smaller parts if these fit only."""
        parts: list[Tensor] = []
        start = 0
        while start < len(stored):
            part = slice(start, start + self.batch_size)
            result = within_memory(partial(self._at_once, stored[part], statistics[part]))
            if result is None:
                self._halve(stored[part])
                continue
            parts.append(result)
            start += len(result)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _halve(self, stored: Sequence[Prepared]) -> None:
        if len(stored) == 1:
            raise AutosegError(
                f"{stored[0].shape[0]}x{stored[0].shape[1]} pixels are too many for the memory of {self.device}",
                "use --device cpu, or close other programs",
            )
        self.batch_size = len(stored) // 2
        logger.warning(
            f"the memory of {self.device} is too small to predict {len(stored)} images or tiles at once: "
            f"going on with {self.batch_size} at once"
        )

    def _at_once(self, stored: Sequence[Prepared], statistics: Sequence[Tensor | None]) -> Tensor:
        known = [item for item in statistics if item is not None]
        stacked = self._to_device(torch.cat(known)) if known else None
        images = normalise(self._to_device(_batch(stored)), self.model_plan.normalisation, stacked)
        images = images.contiguous(memory_format=self.memory_format)
        total = self._activations(images)
        for axes in self._views:
            total += self._activations(images.flip(axes)).flip(axes)
        return total / (1 + len(self._views)) if self._views else total

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Pinned memory, so that the copy to a GPU waits for nothing."""
        tensor = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return tensor.to(self.device, non_blocking=True)

    def _activations(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images).float()
        return activations.probabilities(logits, self._activation, self.scheme)

    @contextmanager
    def _inference_mode(self) -> Iterator[None]:
        """The network in evaluation mode, at its precision, without gradients."""
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad(), tensor_cores(self.device), autocast(self._precision, self.device):
                yield
        finally:
            self.network.train(was_training)


def _memory_format(plan: ModelPlan, device: torch.device) -> torch.memory_format:
    """By the rule of `training.memory_format`; on a processor the plan's, if it has chosen one."""
    if device.type == "cuda":
        last = registry.spec(plan.model).channels_last_on_cuda
    elif device.type == "cpu" and plan.memory_format == "auto":
        last = registry.spec(plan.model).channels_last_on_cpu
    else:
        last = device.type == "cpu" and plan.memory_format == "channels_last"
    return torch.channels_last if last else torch.contiguous_format


@dataclass
class _TiledImage:
    """An image of which some tiles are not predicted yet. statistics: (1, 2, C), see `normalise`."""

    padded: Prepared
    accumulator: TileAccumulator
    statistics: Tensor | None


def _size(image: Prepared) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _batch(images: Sequence[Prepared]) -> Tensor:
    """(h, w, C) arrays of equal size as one tensor (B, C, h, w); uint8 is kept, other types become float32."""
    stacked = np.stack(images)
    if stacked.dtype != np.uint8:
        stacked = stacked.astype(np.float32, copy=False)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
