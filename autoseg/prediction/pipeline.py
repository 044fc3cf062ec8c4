"""The three stages of a run, in parallel: threads decode and preprocess, one thread runs the network, threads write."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.inference import resample_to_original
from autoseg.inference.out_of_memory import within_memory
from autoseg.io import Image, raster, read_case, read_label_of, segmentation, suffix_of, write_label
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.large_image import LargeResult, is_large, predict_large, subsample_labels
from autoseg.prediction.predictor import Inferred, Predictor, Prepared
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import PredictedCase
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, hash_file, hash_text
from autoseg.support.out_of_memory import is_out_of_memory
from autoseg.support.parallel import available_cores, parallel_map

OVERLAYS = "overlays"


@dataclass(frozen=True)
class OutputOptions:
    """What to write besides masks. overlays: names of the jobs. keep_patient: keep patient tags in DICOM-SEG. visible: PNG
    masks have a palette, so that viewers show colours; their values stay."""

    probabilities: bool = False
    overlays: frozenset[str] = frozenset()
    keep_patient: bool = False
    visible: bool = False


@dataclass(frozen=True)
class Failure:
    """A case that could not be predicted, and the reason."""

    job: PredictionJob
    problem: str


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    job: PredictionJob
    image: Image
    prepared: Prepared
    sha256: str
    seconds: float


@dataclass(frozen=True)
class _Large:
    job: PredictionJob
    sha256: str


@dataclass(frozen=True)
class _LargeInferred:
    job: PredictionJob
    sha256: str
    result: LargeResult


@dataclass(frozen=True)
class _Inferred:
    loaded: _Loaded
    inferred: Inferred
    seconds: float


def run(
    predictor: Predictor, jobs: Sequence[PredictionJob], folder: Path, options: OutputOptions, workers: int | None = None
) -> Iterator[PredictedCase | Failure]:
    """Yield the result of each job, in order, after its mask is written."""
    count = workers or min(4, available_cores())
    loaded = parallel_map(partial(_load, predictor, options), jobs, count)
    inferred = _run_network(predictor, loaded)
    yield from parallel_map(partial(_write, predictor, folder, options), inferred, count)


def _load(predictor: Predictor, options: OutputOptions, job: PredictionJob) -> _Loaded | _Large | Failure:
    began = time.perf_counter()
    try:
        if is_large(job) and predictor.streams_large_images:
            # Large images are read later, one at a time: several would fill the memory.
            return _Large(job, content_hash(job))
        image = read_case(job.images, job.frame)
        prepared = predictor.prepare(image.array, image.spacing)
        sha256 = content_hash(job)
    except AutosegError as error:
        files = ", ".join(str(path) for path in job.images)
        return _failure(job, error.problem if str(job.images[0]) in error.problem else f"{files}: {error.problem}")
    except OSError as error:
        return _failure(job, f"{job.images[0]} cannot be read: {error.strerror}")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _failure(job, _out_of_memory(job))
    if job.name not in options.overlays:
        # Without an overlay only shape and geometry are needed: free the pixels.
        image = replace(image, array=np.broadcast_to(np.zeros((), image.array.dtype), image.array.shape))
    return _Loaded(job=job, image=image, prepared=prepared, sha256=sha256, seconds=time.perf_counter() - began)


def content_hash(job: PredictionJob) -> str:
    """SHA-256 of the image file, or of the hashes of all channel files."""
    hashes = [hash_file(path) for path in job.images]
    return hashes[0] if len(hashes) == 1 else hash_text(*hashes)


def _out_of_memory(job: PredictionJob) -> str:
    return f"{job.images[0]}: too large for the memory of this machine"


def _failure(job: PredictionJob, problem: str) -> Failure:
    return Failure(job, job.redact(problem))


def _run_network(
    predictor: Predictor, loaded: Iterable[_Loaded | _Large | Failure]
) -> Iterator[_Inferred | _LargeInferred | Failure]:
    """Run the network in the caller's thread, with all cores. Images wait until they fill a batch."""
    waiting: list[_Loaded] = []
    num_items = 0
    for item in loaded:
        if isinstance(item, Failure):
            yield item
            continue
        if isinstance(item, _Large):
            yield from _infer(predictor, waiting)
            waiting, num_items = [], 0
            yield _infer_large(predictor, item)
            continue
        waiting.append(item)
        num_items += predictor.num_batch_items(item.prepared)
        if num_items >= predictor.batch_size:
            yield from _infer(predictor, waiting)
            waiting, num_items = [], 0
    yield from _infer(predictor, waiting)


def _infer(predictor: Predictor, batch: Sequence[_Loaded]) -> Iterator[_Inferred | Failure]:
    if not batch:
        return
    began = time.perf_counter()
    try:
        results = within_memory(lambda: predictor.infer([item.prepared for item in batch]))
    except AutosegError:
        # Not even one image or tile of one of them fits; alone, each gets its own answer.
        results = None
    if results is None:
        if len(batch) == 1:
            yield _too_large(predictor, batch[0].job)
        for item in batch if len(batch) > 1 else ():
            yield from _infer(predictor, [item])
        return
    seconds = (time.perf_counter() - began) / len(batch)
    for item, inferred in zip(batch, results, strict=True):
        yield _Inferred(item, inferred, seconds)


def _infer_large(predictor: Predictor, item: _Large) -> _LargeInferred | Failure:
    try:
        result = within_memory(lambda: predict_large(predictor, item.job))
    except AutosegError as error:
        return _failure(item.job, error.problem)
    return _too_large(predictor, item.job) if result is None else _LargeInferred(item.job, item.sha256, result)


def _too_large(predictor: Predictor, job: PredictionJob) -> Failure:
    return _failure(job, f"{job.images[0]}: too large for the memory of {predictor.device}")


def _write(
    predictor: Predictor, folder: Path, options: OutputOptions, item: _Inferred | _LargeInferred | Failure
) -> PredictedCase | Failure:
    """Errors of the case itself are its failure; others, such as a full disk, end the run."""
    if isinstance(item, Failure):
        return item
    job = item.job if isinstance(item, _LargeInferred) else item.loaded.job
    try:
        if isinstance(item, _LargeInferred):
            return _write_large(predictor, folder, options, item)
        return _write_case(predictor, folder, options, item)
    except Exception as error:
        cause = error.__cause__
        if isinstance(error, AutosegError) and isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
            return _failure(job, f"{error.problem}; {error.remedy}")
        if not is_out_of_memory(error):
            raise
    return _failure(job, _out_of_memory(job))


def _write_case(predictor: Predictor, folder: Path, options: OutputOptions, item: _Inferred) -> PredictedCase | Failure:
    began = time.perf_counter()
    job, size, maps = item.loaded.job, item.loaded.prepared.size, item.inferred.maps
    labels = predictor.label_map(maps, size)
    prediction = predictor.assess(item.loaded.prepared, item.inferred, labels)
    if options.probabilities:
        _write_probabilities(folder / f"{job.name}.npz", resample_to_original.resize(maps, size), predictor.scheme)
    warnings = prediction.warnings
    if job.name in options.overlays:
        warnings += _write_overlay(folder / OVERLAYS / f"{job.name}.png", item.loaded, labels, predictor.scheme)
    try:
        # Last: an existing mask means that the case is finished.
        write_mask(folder / job.output, labels, item.loaded.image, job, predictor.scheme, options)
    except AutosegError as error:
        if suffix_of(job.output) != ".dcm":
            raise
        return _failure(job, f"{error.problem}; {error.remedy}")
    seconds = {"read": item.loaded.seconds, "network": item.seconds, "write": time.perf_counter() - began}
    return PredictedCase(
        case=job.name,
        output=job.output,
        size=size,
        pixels=prediction.pixels,
        seconds={stage: round(value, 4) for stage, value in seconds.items()},
        notes=item.loaded.image.notes,
        confidence=prediction.confidence,
        warnings=warnings,
        sha256=item.loaded.sha256,
        frame=job.frame,
        mask_sha256=hash_file(folder / job.output),
    )


def _write_large(predictor: Predictor, folder: Path, options: OutputOptions, item: _LargeInferred) -> PredictedCase:
    began = time.perf_counter()
    job, prediction, warnings = item.job, item.result.prediction, item.result.prediction.warnings
    if options.probabilities:
        warnings += ("too large: probabilities were not written",)
    if job.name in options.overlays:
        from autoseg.prediction.overlay import write_overlay

        write_overlay(
            folder / OVERLAYS / f"{job.name}.png",
            item.result.preview.array,
            subsample_labels(prediction.labels),
            predictor.scheme,
        )
    _write_label_map(folder / job.output, prediction.labels, None, predictor.scheme, options)
    seconds = {"network": round(item.result.seconds, 4), "write": round(time.perf_counter() - began, 4)}
    size = (prediction.labels.shape[0], prediction.labels.shape[1])
    return PredictedCase(
        case=job.name,
        output=job.output,
        size=size,
        pixels=prediction.pixels,
        seconds=seconds,
        notes=(),
        confidence=prediction.confidence,
        warnings=warnings,
        sha256=item.sha256,
        mask_sha256=hash_file(folder / job.output),
    )


def _write_label_map(path: Path, labels: NDArray[Any], like: Image | None, scheme: LabelScheme, options: OutputOptions) -> None:
    if not options.visible or suffix_of(path) != ".png" or labels.max(initial=0) > 255:
        write_label(path, labels, like=like)
        return
    from autoseg.prediction.overlay import mask_colours

    raster.write_palette(path, labels.astype(np.uint8), mask_colours(scheme))


def write_mask(
    path: Path, labels: NDArray[Any], image: Image, job: PredictionJob, scheme: LabelScheme, options: OutputOptions
) -> None:
    """Write a label map in the format of the path's suffix; .dcm is a DICOM-SEG object that refers to the image."""
    if suffix_of(path) != ".dcm":
        _write_label_map(path, labels, image, scheme, options)
        return
    segments = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.foreground.values())
    names = dict(zip(segments, scheme.foreground, strict=True))
    segmentation.write(path, labels, job.images[0], names, frame=job.frame, keep_patient=options.keep_patient)


def _write_overlay(path: Path, loaded: _Loaded, labels: NDArray[Any], scheme: LabelScheme) -> tuple[str, ...]:
    """Returns a warning if the reference cannot be read; it is then not drawn."""
    # Imported only if overlays are requested.
    from autoseg.prediction.overlay import write_overlay

    job, reference = loaded.job, None
    warnings: tuple[str, ...] = ()
    try:
        reference = read_label_of(job.reference, job.images, loaded.image).array if job.reference is not None else None
    except AutosegError as error:
        warnings = (job.redact(f"the reference is not drawn: {error.problem}"),)
    write_overlay(path, loaded.image.array, labels, scheme, reference)
    return warnings


def _write_probabilities(path: Path, maps: NDArray[Any], scheme: LabelScheme) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, probabilities=maps.astype(np.float16), names=np.array(scheme.names))
