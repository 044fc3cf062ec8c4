"""The three stages of a run side by side: threads decode and prepare, one feeds the network, threads write."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.inference import resample_to_original
from autoseg.io import Image, read_case, read_label, segmentation, suffix_of, write_label
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.large_image import LargeResult, is_large, predict_large, thin_labels
from autoseg.prediction.predictor import Inferred, Predictor, Prepared
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import PredictedCase
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, hash_file, hash_text
from autoseg.support.parallel import available_cores, parallel_map

OVERLAYS = "overlays"


@dataclass(frozen=True)
class Wanted:
    """What to write beside the masks. overlays: names of the jobs. keep_patient: tags of the patient in DICOM-SEG."""

    probabilities: bool = False
    overlays: frozenset[str] = frozenset()
    keep_patient: bool = False


@dataclass(frozen=True)
class Failure:
    """A case that could not be predicted, and why."""

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
    predictor: Predictor, jobs: Sequence[PredictionJob], folder: Path, wanted: Wanted, workers: int | None = None
) -> Iterator[PredictedCase | Failure]:
    """Each job's outcome, in order; its mask is written when it comes out."""
    count = workers or min(4, available_cores())
    loaded = parallel_map(partial(_load, predictor, wanted), jobs, count)
    inferred = _through_network(predictor, loaded)
    yield from parallel_map(partial(_write, predictor, folder, wanted), inferred, count)


def _load(predictor: Predictor, wanted: Wanted, job: PredictionJob) -> _Loaded | _Large | Failure:
    began = time.perf_counter()
    try:
        if is_large(job):
            # One at a time: several of them side by side would fill the memory.
            return _Large(job, content_hash(job))
        image = read_case(job.images, job.frame)
        prepared = predictor.prepare(image.array, image.spacing)
        sha256 = content_hash(job)
    except AutosegError as error:
        files = ", ".join(str(path) for path in job.images)
        return _failure(job, error.problem if str(job.images[0]) in error.problem else f"{files}: {error.problem}")
    except OSError as error:
        return _failure(job, f"{job.images[0]} cannot be read: {error.strerror}")
    except MemoryError:
        return _failure(job, f"{job.images[0]}: too large for this machine's memory")
    if job.name not in wanted.overlays:
        # Only its shape and geometry are needed from here on.
        image = replace(image, array=np.broadcast_to(np.zeros((), image.array.dtype), image.array.shape))
    return _Loaded(job=job, image=image, prepared=prepared, sha256=sha256, seconds=time.perf_counter() - began)


def content_hash(job: PredictionJob) -> str:
    """SHA-256 of the image file; of the hashes of several, where a case has several."""
    hashes = [hash_file(path) for path in job.images]
    return hashes[0] if len(hashes) == 1 else hash_text(*hashes)


def _failure(job: PredictionJob, problem: str) -> Failure:
    return Failure(job, job.tell(problem))


def _through_network(
    predictor: Predictor, loaded: Iterable[_Loaded | _Large | Failure]
) -> Iterator[_Inferred | _LargeInferred | Failure]:
    """Runs in the thread that asks: one network, all cores. Images wait until they fill a batch."""
    waiting: list[_Loaded] = []
    load = 0
    for item in loaded:
        if isinstance(item, Failure):
            yield item
            continue
        if isinstance(item, _Large):
            yield from _infer(predictor, waiting)
            waiting, load = [], 0
            yield _infer_large(predictor, item)
            continue
        waiting.append(item)
        load += predictor.num_batch_items(item.prepared)
        if load >= predictor.batch_size:
            yield from _infer(predictor, waiting)
            waiting, load = [], 0
    yield from _infer(predictor, waiting)


def _infer(predictor: Predictor, batch: Sequence[_Loaded]) -> Iterator[_Inferred | Failure]:
    if not batch:
        return
    began = time.perf_counter()
    try:
        found = predictor.infer([item.prepared for item in batch])
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            yield _failure(batch[0].job, f"{batch[0].job.images[0]}: too large for the memory of {predictor.device}")
        for item in batch if len(batch) > 1 else ():
            yield from _infer(predictor, [item])
        return
    seconds = (time.perf_counter() - began) / len(batch)
    for item, inferred in zip(batch, found, strict=True):
        yield _Inferred(item, inferred, seconds)


def _infer_large(predictor: Predictor, item: _Large) -> _LargeInferred | Failure:
    try:
        return _LargeInferred(item.job, item.sha256, predict_large(predictor, item.job))
    except AutosegError as error:
        return _failure(item.job, error.problem)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return _failure(item.job, f"{item.job.images[0]}: too large for the memory of {predictor.device}")


def _is_out_of_memory(error: Exception) -> bool:
    # On processors torch raises a plain RuntimeError, told by its text only.
    known = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def _write(
    predictor: Predictor, folder: Path, wanted: Wanted, item: _Inferred | _LargeInferred | Failure
) -> PredictedCase | Failure:
    if isinstance(item, Failure):
        return item
    if isinstance(item, _LargeInferred):
        return _write_large(predictor, folder, wanted, item)
    began = time.perf_counter()
    job, size, maps = item.loaded.job, item.loaded.prepared.size, item.inferred.maps
    labels = predictor.label_map(maps, size)
    judged = predictor.assess(item.loaded.prepared, item.inferred, labels)
    if wanted.probabilities:
        _write_probabilities(folder / f"{job.name}.npz", resample_to_original.resize(maps, size), predictor.scheme)
    if job.name in wanted.overlays:
        _write_overlay(folder / OVERLAYS / f"{job.name}.png", item.loaded, labels, predictor.scheme)
    try:
        # Last of all: a mask that is there says that the case is done.
        write_mask(folder / job.output, labels, item.loaded.image, job, predictor.scheme, wanted)
    except AutosegError as error:
        if suffix_of(job.output) != ".dcm":
            raise
        return _failure(job, f"{error.problem}; {error.remedy}")
    seconds = {"read": item.loaded.seconds, "network": item.seconds, "write": time.perf_counter() - began}
    return PredictedCase(
        case=job.name,
        output=job.output,
        size=size,
        pixels=judged.pixels,
        seconds={stage: round(value, 4) for stage, value in seconds.items()},
        notes=item.loaded.image.notes,
        confidence=judged.confidence,
        warnings=judged.warnings,
        sha256=item.loaded.sha256,
        frame=job.frame,
    )


def _write_large(predictor: Predictor, folder: Path, wanted: Wanted, item: _LargeInferred) -> PredictedCase:
    began = time.perf_counter()
    job, judged, warnings = item.job, item.result.judged, item.result.judged.warnings
    if wanted.probabilities:
        warnings += ("too large for probabilities to be written",)
    if job.name in wanted.overlays:
        from autoseg.prediction.overlay import write_overlay

        write_overlay(
            folder / OVERLAYS / f"{job.name}.png", item.result.image.array, thin_labels(judged.labels), predictor.scheme
        )
    write_label(folder / job.output, judged.labels)
    seconds = {"network": round(item.result.seconds, 4), "write": round(time.perf_counter() - began, 4)}
    size = (judged.labels.shape[0], judged.labels.shape[1])
    return PredictedCase(
        case=job.name,
        output=job.output,
        size=size,
        pixels=judged.pixels,
        seconds=seconds,
        notes=(),
        confidence=judged.confidence,
        warnings=warnings,
        sha256=item.sha256,
    )


def write_mask(path: Path, labels: NDArray[Any], image: Image, job: PredictionJob, scheme: LabelScheme, wanted: Wanted) -> None:
    """A label map in the format of the path's suffix; .dcm is a segmentation object that refers to the image."""
    if suffix_of(path) != ".dcm":
        write_label(path, labels, like=image)
        return
    segments = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.foreground.values())
    names = dict(zip(segments, scheme.foreground, strict=True))
    segmentation.write(path, labels, job.images[0], names, frame=job.frame, keep_patient=wanted.keep_patient)


def _write_overlay(path: Path, loaded: _Loaded, labels: NDArray[Any], scheme: LabelScheme) -> None:
    # Brings in what draws only where it is asked for.
    from autoseg.prediction.overlay import write_overlay

    reference = read_label(loaded.job.reference).array if loaded.job.reference is not None else None
    write_overlay(path, loaded.image.array, labels, scheme, reference)


def _write_probabilities(path: Path, maps: NDArray[Any], scheme: LabelScheme) -> None:
    with atomic_write(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, probabilities=maps.astype(np.float16), names=np.array(scheme.names))
