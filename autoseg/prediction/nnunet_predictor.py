"""Prediction with a model of nnU-Net v2 as nnU-Net itself does it: crop, normalise, resample, weighted tiles, mirrored views.

Isensee et al.: nnU-Net. Nature Methods 2021; written from the steps of nnunetv2 2.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from autoseg.prediction.inference_metadata import InferenceMetadata
from autoseg.prediction.nnunet_plans import NNUNetConfiguration, NNUNetModel, read_model
from autoseg.prediction.predictor import Inferred, Predictor, Prepared, Spacing, channels_first
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.training.device import resolve

Array = NDArray[Any]
_STEP = 0.5
# nnU-Net adds up half-precision numbers; with this factor the weights of a tile's corners stay above zero.
_GAUSSIAN_SCALE, _GAUSSIAN_SIGMA = 10, 1 / 8


@dataclass(frozen=True)
class _Cropped(Prepared):
    """arrays: one (C, h, w) float32, normalised and resampled. box: of the crop in the image (transposed as in the plans)."""

    box: tuple[slice, slice] = field(default_factory=lambda: (slice(None), slice(None)))


class NNUNetPredictor(Predictor):
    """Averages the logits of the folds of a model that nnU-Net has trained, mirrored as its checkpoint allows."""

    streams_large_images = False

    def __init__(self, model: NNUNetModel, device: torch.device | str = "cpu", tta: bool | None = None) -> None:
        """tta: False for one view only; else nnU-Net's own mirrored views."""
        self.model = model
        self.metadata = InferenceMetadata()
        self.device = torch.device(device)
        self.mirror = () if tta is False else tuple(axis for axis in (0, 1) if axis in model.mirror)
        self._network = model.network.to(self.device)
        self._scheme = model.spec.label_scheme()
        self._weight = _gaussian(model.configuration.patch).to(self.device)

    @classmethod
    def read(
        cls, folder: Path, folds: Sequence[int] | None = None, device: str = "auto", tta: bool | None = None
    ) -> NNUNetPredictor:
        """See `nnunet_plans.read_model`."""
        return cls(read_model(folder, folds), resolve(device), tta)

    @property
    def scheme(self) -> LabelScheme:
        return self._scheme

    @property
    def spec(self) -> DatasetSpec:
        return self.model.spec

    @property
    def channels(self) -> int:
        return len(self.model.spec.channel_names)

    @property
    def batch_size(self) -> int:
        return 1

    @property
    def dataset(self) -> str:
        return self.model.name

    @property
    def models(self) -> tuple[str, ...]:
        return ("nnunet",)

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(int(fold) for fold in self.model.folds if fold.isdigit())

    @property
    def identities(self) -> dict[str, str]:
        return self.model.identities

    @property
    def precision(self) -> str:
        return "fp32"

    def prepare(self, image: Array, spacing: Spacing = None) -> Prepared:
        planes = channels_first(np.asarray(image), self.channels).astype(np.float32)
        size = (planes.shape[1], planes.shape[2])
        configuration, own = self.model.configuration, spacing or (1.0, 1.0)
        if configuration.transpose:
            planes, own = planes.transpose(0, 2, 1), (own[1], own[0])
        filled = binary_fill_holes((planes != 0).any(axis=0))
        box = _box(filled)
        # The extra axis of nnU-Net's arrays: sums are rounded in the order of their axes.
        cropped = planes[:, None, box[0], box[1]]
        for channel in range(len(cropped)):
            cropped[channel] = _normalised(cropped[channel], filled[box][None], configuration, channel)
        shape = _resampled_size(cropped.shape[2:], own, configuration.spacing)
        array = _resize(cropped[:, 0], shape, configuration.order)
        return _Cropped((array,), size, {}, box)

    def num_batch_items(self, prepared: Prepared) -> int:
        return 1

    def infer(self, prepared: Sequence[Prepared]) -> list[Inferred]:
        return [Inferred(self._probabilities(one)) for one in prepared]

    def _probabilities(self, prepared: Prepared) -> Tensor:
        """(K, H, W) of the whole image; what was cropped is background."""
        assert isinstance(prepared, _Cropped)
        logits = self._logits(torch.from_numpy(prepared.arrays[0]))
        height, width = prepared.size[::-1] if self.model.configuration.transpose else prepared.size
        rows, columns = (range(length)[one] for length, one in zip((height, width), prepared.box, strict=True))
        values = _resize(logits.numpy(), (len(rows), len(columns)), self.model.configuration.probability_order)
        cropped = torch.from_numpy(values).float()
        inside = torch.sigmoid(cropped) if self._scheme.regions else torch.softmax(cropped, 0)
        whole = torch.zeros(len(inside), height, width)
        if not self._scheme.regions:
            whole[0] = 1
        whole[:, prepared.box[0], prepared.box[1]] = inside
        return whole.transpose(1, 2).contiguous() if self.model.configuration.transpose else whole

    @torch.inference_mode()
    def _logits(self, image: Tensor) -> Tensor:
        """Mean logits (K, h, w) of the folds in half precision, as nnU-Net keeps them."""
        total: Tensor | None = None
        for weights in self.model.weights:
            self._network.load_state_dict(weights)
            logits = self._tiled(image)
            total = logits if total is None else total.add_(logits)
        assert total is not None
        return total / len(self.model.weights) if len(self.model.weights) > 1 else total

    def _tiled(self, image: Tensor) -> Tensor:
        """Logits (K, h, w) of one network, from tiles that overlap by half."""
        padded, place = _padded(image, self.model.configuration.patch)
        patch, size = self.model.configuration.patch, padded.shape[1:]
        total = torch.zeros(self._scheme.outputs, *size, dtype=torch.half)
        weights = torch.zeros(size, dtype=torch.half)
        cpu_weight = self._weight.cpu()
        for row in _starts(size[0], patch[0]):
            for column in _starts(size[1], patch[1]):
                tile = (slice(row, row + patch[0]), slice(column, column + patch[1]))
                view = padded[:, tile[0], tile[1]][None].contiguous().to(self.device)
                predicted = self._mirrored(view)[0].float().cpu()
                total[:, tile[0], tile[1]] += predicted * cpu_weight
                weights[tile] += cpu_weight
        return torch.div(total, weights)[:, place[0], place[1]]

    def _mirrored(self, tile: Tensor) -> Tensor:
        """Mean logits (1, K, h, w) of the mirrored views."""
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            axes = [2 + axis for axis in self.mirror]
            views = [list(one) for number in range(1, len(axes) + 1) for one in combinations(axes, number)]
            total: Tensor = self._network(tile)
            for view in views:
                total = total + torch.flip(self._network(torch.flip(tile, view)), view)
            return total / (len(views) + 1) if views else total


def _box(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Bounding box of the pixels that are not zero; the whole image if all are."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return slice(0, inside.shape[0]), slice(0, inside.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _normalised(
    image: NDArray[np.float32], inside: NDArray[np.bool_], configuration: NNUNetConfiguration, channel: int
) -> NDArray[np.float32]:
    scheme, known = configuration.normalisations[channel], configuration.intensities[channel]
    if scheme == "ZScoreNormalization":
        if not configuration.masked[channel]:
            return np.asarray((image - image.mean()) / max(image.std(), 1e-8), np.float32)
        result: NDArray[np.float32] = image.copy()
        result[inside] = (image[inside] - image[inside].mean()) / max(image[inside].std(), 1e-8)
        return result
    if scheme == "CTNormalization":
        clipped = np.clip(image, known["percentile_00_5"], known["percentile_99_5"])
        return np.asarray((clipped - known["mean"]) / max(known["std"], 1e-8), np.float32)
    if scheme == "RescaleTo01Normalization":
        shifted = image - image.min()
        return np.asarray(shifted / max(shifted.max(), 1e-8), np.float32)
    return np.asarray(image / 255.0, np.float32) if scheme == "RGBTo01Normalization" else image


def _resampled_size(size: Sequence[int], spacing: tuple[float, float], target: tuple[float, float]) -> tuple[int, int]:
    rows, columns = (round(own / new * length) for own, new, length in zip(spacing, target, size, strict=True))
    return int(rows), int(columns)


def _resize(maps: NDArray[Any], size: tuple[int, int], order: int) -> NDArray[Any]:
    """Maps (C, h, w) at another size by splines, edges continued, without smoothing; the type stays."""
    if maps.shape[1:] == size:
        return np.ascontiguousarray(maps)
    from skimage.transform import resize  # here, because most models need none

    resized = np.zeros((len(maps), *size), maps.dtype)
    for number, one in enumerate(maps):
        resized[number] = resize(one.astype(float), size, order, mode="edge", anti_aliasing=False)
    return resized


def _padded(image: Tensor, patch: tuple[int, int]) -> tuple[Tensor, tuple[slice, slice]]:
    """The image (C, h, w) with zeros around it up to the patch, the odd one after it; and its place."""
    missing = [max(0, side - length) for side, length in zip(patch, image.shape[1:], strict=True)]
    before = [one // 2 for one in missing]
    (rows, columns), (height, width) = before, image.shape[1:]
    padding = (columns, missing[1] - columns, rows, missing[0] - rows)
    return F.pad(image, padding), (slice(rows, rows + height), slice(columns, columns + width))


def _starts(length: int, patch: int) -> list[int]:
    """First pixels of the tiles along a side: at most half a tile apart, evenly spread."""
    number = math.ceil((length - patch) / (patch * _STEP)) + 1
    step = (length - patch) / (number - 1) if number > 1 else 0.0
    return [round(step * index) for index in range(number)]


def _gaussian(patch: tuple[int, int]) -> Tensor:
    """Weights (h, w) of a tile's pixels, in half precision, none of them zero."""
    weights = np.zeros(patch)
    weights[patch[0] // 2, patch[1] // 2] = 1
    weights = gaussian_filter(weights, [side * _GAUSSIAN_SIGMA for side in patch], 0, mode="constant", cval=0)
    half = torch.from_numpy(weights / (weights.max() / _GAUSSIAN_SCALE)).half()
    half[half == 0] = half[half > 0].min()
    return half
