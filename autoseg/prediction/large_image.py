"""Very large images, band by band: of the probabilities a band stands in memory, of the image only what has to."""

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
from autoseg.prediction.predictor import PredictionWithConfidence, Predictor
from autoseg.preprocessing.transform import match_channels, preprocess_image
from autoseg.schema.plan import PreprocessingConfig

# From so many pixels on: maps of two classes would take more than 256 MB.
LARGE = 1 << 25
_BAND_PIXELS = 1 << 19
_THIN = 1024
_NOT_CLEANED = "too large for post-processing: the mask is as the networks made it"
# (start, stop) rows of the image -> probabilities (K, rows, W); asked for from the top down.
Bands = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class LargeResult:
    """judged: the mask and what is to be thought of it. image: thinned out, to draw on; its geometry is of the whole."""

    judged: PredictionWithConfidence
    image: Image
    seconds: float


def is_large(job: PredictionJob) -> bool:
    """Whether a case is one picture with so many pixels that it is predicted by itself."""
    return len(job.images) == 1 and job.frame is None and count_pixels(job.images[0]) >= LARGE


def predict_large(predictor: Predictor, job: PredictionJob) -> LargeResult:
    """The mask of a large picture. Post-processing is left out, and said so. Raises AutosegError as `read_image`."""
    began = time.perf_counter()
    rows = TiffRows.open(job.images[0])
    with rows or nullcontext():
        source = rows or ArrayRows(read_image(job.images[0]).array)
        size = source.size
        thin = _thinned(source, max(1, math.ceil(max(size) / _THIN)))
        whole = {e.preparation for e, _ in predictor.engines if not can_stream(e, size)}
        prepared = {one: preprocess_image(_assembled(source, one), one, None) for one in whole}
        members = [_bands(engine, source, prepared.get(engine.preparation)) for engine, _ in predictor.engines]
        labels, sums = _decide(predictor, members, size)
    confidence = sums.confidence(predictor.knowledge.calibration)
    judged = predictor.judged_as(labels, confidence, _measured(predictor, thin, size))
    if predictor.knowledge.postprocessing:
        judged = replace(judged, warnings=(*judged.warnings, _NOT_CLEANED))
    return LargeResult(judged, Image(array=thin, spacing=None), time.perf_counter() - began)


def _bands(engine: Engine, source: ArrayRows | TiffRows, whole: NDArray[Any] | None) -> Bands:
    """One member's probabilities, band by band at the image's size. whole: what it sees, where that is no band."""
    size, preparation = source.size, engine.preparation
    if whole is None:
        return _Buffer(stream(engine, size, lambda start, stop: _stored(source.rows(start, stop), preparation)))
    maps = engine.probabilities([whole])[0].numpy()
    return lambda start, stop: np.stack([resample_to_original.band(channel, size, (start, stop)) for channel in maps])


def _assembled(source: ArrayRows | TiffRows, preparation: PreprocessingConfig) -> NDArray[Any]:
    """All of the image, (C, H, W): read band by band, and with no more channels than the network takes."""
    if isinstance(source, ArrayRows) and source.channels == preparation.channels:
        return np.moveaxis(source.rows(0, source.size[0]), 2, 0)
    height, width = source.size
    rows = max(1, _BAND_PIXELS // width)
    found: NDArray[Any] | None = None
    for start in range(0, height, rows):
        colours = np.moveaxis(source.rows(start, min(start + rows, height)), 2, 0)
        band = np.moveaxis(match_channels(colours, preparation), 0, 2)
        found = np.empty((height, width, preparation.channels), band.dtype) if found is None else found
        found[start : start + rows] = band
    assert found is not None
    return np.moveaxis(found, 2, 0)


def _measured(predictor: Predictor, thin: NDArray[Any], size: tuple[int, int]) -> dict[str, float]:
    if predictor.knowledge.appearance is None:
        return {}
    prepared = preprocess_image(thin, predictor.preparations[0], None)
    return ood_detection.measure(prepared, size, None, ood_detection.colourfulness(thin) if prepared.shape[2] == 1 else None)


def _stored(pixels: NDArray[Any], preparation: PreprocessingConfig) -> NDArray[Any]:
    """Rows as the store would hold them: channels and type, at the same size."""
    return preprocess_image(np.moveaxis(pixels, 2, 0), preparation, None)


class _Buffer:
    """Rows that were computed and not asked for yet."""

    def __init__(self, found: Iterator[Tensor]) -> None:
        self._found = found
        self._kept: NDArray[np.float32] | None = None
        self._first = 0

    def __call__(self, start: int, stop: int) -> NDArray[np.float32]:
        while self._kept is None or self._first + self._kept.shape[1] < stop:
            new = next(self._found).numpy()
            kept = new if self._kept is None else np.concatenate([self._kept[:, start - self._first :], new], axis=1)
            self._first = start if self._kept is not None else self._first
            self._kept = kept
        return self._kept[:, start - self._first : stop - self._first]


def _decide(predictor: Predictor, members: list[Bands], size: tuple[int, int]) -> tuple[NDArray[Any], ConfidenceAccumulator]:
    """The label map, and the sums that confidence is made of."""
    height, width = size
    labels = np.zeros(size, np.uint8 if max(predictor.scheme.values) < 256 else np.uint16)
    sums = ConfidenceAccumulator(predictor.scheme, len(members), size)
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        total: NDArray[np.float32] | None = None
        for number, band in enumerate(members):
            maps = band(start, stop)
            sums.add_member(number, torch.from_numpy(np.ascontiguousarray(maps)), start)
            total = maps.copy() if total is None else total + maps
        assert total is not None
        mean = torch.from_numpy(np.ascontiguousarray(total / len(members)))
        sums.add_mean(mean)
        labels[start:stop] = resample_to_original.label_map(mean, predictor.scheme, (stop - start, width))
    return labels, sums


def _thinned(source: ArrayRows | TiffRows, step: int) -> NDArray[Any]:
    """(C, h, w): every so-many-th row and column."""
    rows = [source.rows(start, start + 1)[:, ::step] for start in range(0, source.size[0], step)]
    return np.ascontiguousarray(np.moveaxis(np.concatenate(rows), 2, 0))


def thin_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """The label map thinned out as the image of `LargeResult` is."""
    step = max(1, math.ceil(max(labels.shape) / _THIN))
    return np.ascontiguousarray(labels[::step, ::step])

