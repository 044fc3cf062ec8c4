"""Very large images, predicted band by band: only one band of probabilities is in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.inference import resample_to_original
from autoseg.inference.engine import Engine
from autoseg.inference.large_image import can_stream, stream
from autoseg.io import Image, read_image
from autoseg.io.tiff_reader import ArrayRows, TiffRows, count_pixels
from autoseg.prediction import ood_detection
from autoseg.prediction.confidence import ConfidenceAccumulator
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.predictor import PredictionWithConfidence, Predictor, without_padding
from autoseg.preprocessing.transform import match_channels, preprocess_image
from autoseg.schema.plan import PreprocessingConfig

# Pixels of a large image: float32 maps of two classes take 256 MB.
LARGE = 1 << 25
_BAND_PIXELS = 1 << 19
_PREVIEW_SIDE = 1024
_NOT_POSTPROCESSED = "too large for post-processing: this is the networks' mask"
# (start, stop) rows of the image -> probabilities (K, rows, W). Called from top to bottom.
Bands = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class LargeResult:
    """prediction: mask, confidence and warnings. preview: the image subsampled, for the overlay."""

    prediction: PredictionWithConfidence
    preview: Image
    seconds: float


def is_large(job: PredictionJob) -> bool:
    """True if the case is one file with at least `LARGE` pixels."""
    return len(job.images) == 1 and job.frame is None and count_pixels(job.images[0]) >= LARGE


def predict_large(predictor: Predictor, job: PredictionJob) -> LargeResult:
    """Predict a large image, without post-processing (a warning says so). Raises AutosegError as `read_image`."""
    began = time.perf_counter()
    rows = TiffRows.open(job.images[0])
    with rows or nullcontext():
        source = rows or ArrayRows(read_image(job.images[0]).array)
        size = source.size
        preview = _subsample(source, max(1, math.ceil(max(size) / _PREVIEW_SIDE)))
        unstreamed = {engine.preprocessing for engine, _ in predictor.engines if not can_stream(engine, size)}
        prepared = {config: preprocess_image(_read_image(source, config), config, None) for config in unstreamed}
        members = [_bands(engine, source, prepared.get(engine.preprocessing)) for engine, _ in predictor.engines]
        labels, accumulator = _predict_bands(predictor, members, size)
    confidence = accumulator.confidence(predictor.metadata.calibration)
    prediction = predictor.with_warnings(labels, confidence, _measure(predictor, preview, size))
    if predictor.metadata.postprocessing:
        prediction = replace(prediction, warnings=(*prediction.warnings, _NOT_POSTPROCESSED))
    return LargeResult(prediction, Image(array=preview, spacing=None), time.perf_counter() - began)


def _bands(engine: Engine, source: ArrayRows | TiffRows, prepared: NDArray[Any] | None) -> Bands:
    """One member's probabilities in bands at the image's size. prepared: the preprocessed image, None to stream it."""
    size, preprocessing = source.size, engine.preprocessing
    if prepared is None:
        return _Buffer(stream(engine, size, lambda start, stop: _preprocess_rows(source.rows(start, stop), preprocessing)))
    maps = without_padding(engine.probabilities([prepared])[0], size, preprocessing).numpy()
    return lambda start, stop: np.stack([resample_to_original.band(channel, size, (start, stop)) for channel in maps])


def _read_image(source: ArrayRows | TiffRows, preprocessing: PreprocessingConfig) -> NDArray[Any]:
    """The image (C, H, W), read in bands and reduced to the network's channels to save memory."""
    if isinstance(source, ArrayRows) and source.channels == preprocessing.channels:
        return np.moveaxis(source.rows(0, source.size[0]), 2, 0)
    height, width = source.size
    rows = max(1, _BAND_PIXELS // width)
    image: NDArray[Any] | None = None
    for start in range(0, height, rows):
        colours = np.moveaxis(source.rows(start, min(start + rows, height)), 2, 0)
        band = np.moveaxis(match_channels(colours, preprocessing), 0, 2)
        image = np.empty((height, width, preprocessing.channels), band.dtype) if image is None else image
        image[start : start + rows] = band
    assert image is not None
    return np.moveaxis(image, 2, 0)


def _measure(predictor: Predictor, preview: NDArray[Any], size: tuple[int, int]) -> dict[str, float]:
    if predictor.metadata.appearance is None:
        return {}
    prepared = preprocess_image(preview, predictor.preprocessing_configs[0], None)
    return ood_detection.measure(prepared, size, None, ood_detection.colourfulness(preview) if prepared.shape[2] == 1 else None)


def _preprocess_rows(pixels: NDArray[Any], preprocessing: PreprocessingConfig) -> NDArray[Any]:
    """Rows (rows, W, C) converted to the channels and type of the training arrays."""
    return preprocess_image(np.moveaxis(pixels, 2, 0), preprocessing, None)


class _Buffer:
    """Serves bands of any height from a stream of bands."""

    def __init__(self, bands: Iterator[Tensor]) -> None:
        self._bands = bands
        self._rows: NDArray[np.float32] | None = None
        self._first = 0

    def __call__(self, start: int, stop: int) -> NDArray[np.float32]:
        while self._rows is None or self._first + self._rows.shape[1] < stop:
            new = next(self._bands).numpy()
            rows = new if self._rows is None else np.concatenate([self._rows[:, start - self._first :], new], axis=1)
            self._first = start if self._rows is not None else self._first
            self._rows = rows
        return self._rows[:, start - self._first : stop - self._first]


def _predict_bands(
    predictor: Predictor, members: list[Bands], size: tuple[int, int]
) -> tuple[NDArray[Any], ConfidenceAccumulator]:
    """The label map, and the sums that confidence is made of."""
    height, width = size
    labels = np.zeros(size, np.uint8 if max(predictor.scheme.values) < 256 else np.uint16)
    accumulator = ConfidenceAccumulator(predictor.scheme, len(members), size)
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        total: NDArray[np.float32] | None = None
        for number, band in enumerate(members):
            maps = band(start, stop)
            accumulator.add_member(number, torch.from_numpy(np.ascontiguousarray(maps)), start)
            total = maps.copy() if total is None else total + maps
        assert total is not None
        mean = torch.from_numpy(np.ascontiguousarray(total / len(members)))
        accumulator.add_mean(mean)
        labels[start:stop] = resample_to_original.label_map(mean, predictor.scheme, (stop - start, width))
    return labels, accumulator


def _subsample(source: ArrayRows | TiffRows, step: int) -> NDArray[Any]:
    """(C, h, w): every `step`-th row and column."""
    rows = [source.rows(start, start + 1)[:, ::step] for start in range(0, source.size[0], step)]
    return np.ascontiguousarray(np.moveaxis(np.concatenate(rows), 2, 0))


def subsample_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """The label map subsampled like `LargeResult.preview`."""
    step = max(1, math.ceil(max(labels.shape) / _PREVIEW_SIDE))
    return np.ascontiguousarray(labels[::step, ::step])
