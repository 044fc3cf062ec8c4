"""Image files to masks: decoding, the network and writing side by side, one bad file not stopping the others."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import autoseg
from autoseg.inference import restore
from autoseg.io import Image, is_image, read_case, read_label, stem_of, write_label
from autoseg.prediction.inputs import Job, find_jobs
from autoseg.prediction.overlay import write_overlay
from autoseg.prediction.predictor import Inferred, Predictor, Prepared
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support import log
from autoseg.support.errors import AutosegError
from autoseg.support.files import replacing, write_artefact
from autoseg.support.workers import available_cores, ordered_map

RECORD = "prediction.json"
OVERLAYS = "overlays"


@dataclass(frozen=True)
class PredictionReport:
    """What came of a run; its text is for people. failed: case -> what was wrong."""

    folder: Path
    record: PredictionRecord

    @property
    def failed(self) -> dict[str, str]:
        return self.record.failed

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the masks that were written."""
        return tuple(case.case for case in self.record.cases)

    def __str__(self) -> str:
        count = len(self.record.cases)
        lines = [f"{count} mask{'s' if count != 1 else ''} in {self.folder} ({self.record.seconds:.1f} s)"]
        if self.record.skipped:
            lines.append(f"{len(self.record.skipped)} were there already and were left as they are")
        if self.failed:
            lines.append(f"{len(self.failed)} could not be predicted:")
            lines += [f"  - {case}: {problem}" for case, problem in self.failed.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Wanted:
    """What to write beside the masks, and whether masks that are there are made again. overlays: names of the jobs."""

    probabilities: bool = False
    overlays: frozenset[str] = frozenset()
    overwrite: bool = True


def predict_files(
    predictor: Predictor,
    inputs: Path | Sequence[Path],
    output: Path,
    *,
    probabilities: bool = False,
    overlays: bool = False,
    references: Path | None = None,
    recursive: bool = False,
    overwrite: bool = True,
    workers: int | None = None,
) -> PredictionReport:
    """Masks of a folder of images (see `find_jobs`), one image or a list of them, written to the folder `output`.

    A mask has its image's name, size and geometry, and its format where that keeps label values (JPEG becomes PNG, DICOM
    becomes NIfTI). probabilities: also <case>.npz with float16 "probabilities" (K, H, W) at the image's size and their
    "names". overlays: also overlays/<case>.png; references: a folder of masks to draw into them. overwrite: False leaves
    masks that are there. Unreadable and ill-fitting images are named in the report, the rest is done. Raises AutosegError
    where there is nothing to predict or the output cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise AutosegError(f"{output} is a file", "give a folder for the masks")
    jobs = find_jobs(inputs, predictor.channels, recursive, output)
    if references is not None:
        known = {stem_of(path): path for path in references.iterdir() if is_image(path)} if references.is_dir() else {}
        jobs = [replace(job, reference=known.get(Path(job.name).name)) for job in jobs]
    drawn = frozenset(job.name for job in jobs) if overlays else frozenset()
    return predict_jobs(predictor, jobs, output, Wanted(probabilities, drawn, overwrite), workers)


def predict_jobs(
    predictor: Predictor, jobs: Sequence[Job], folder: Path, wanted: Wanted, workers: int | None = None
) -> PredictionReport:
    """The same for jobs that are known already. `prediction.json` is written last."""
    # Our own threads work side by side; OpenCV's would only get in their way.
    cv2.setNumThreads(1)
    began = time.perf_counter()
    there = [job for job in jobs if not wanted.overwrite and (folder / job.output).is_file()]
    left = [job for job in jobs if job not in there] if there else list(jobs)
    count = workers or min(4, available_cores())
    loaded = ordered_map(partial(_load, predictor, wanted), left, count)
    inferred = _through_network(predictor, loaded)
    done: dict[str, PredictedCase] = {}
    failed: dict[str, str] = {}
    written = ordered_map(partial(_write, predictor, folder, wanted), inferred, count)
    for result in log.progress(written, "predicting", len(left)):
        if isinstance(result, _Failure):
            failed[result.job.name] = result.problem
        else:
            done[result.case] = result
    ordered = tuple(done[job.name] for job in left if job.name in done)
    record = _record(predictor, ordered, failed, tuple(job.name for job in there), time.perf_counter() - began)
    write_artefact(folder / RECORD, record)
    return PredictionReport(folder, record)


@dataclass(frozen=True)
class _Loaded:
    job: Job
    image: Image
    prepared: Prepared
    seconds: float


@dataclass(frozen=True)
class _Inferred:
    loaded: _Loaded
    inferred: Inferred
    seconds: float


@dataclass(frozen=True)
class _Failure:
    job: Job
    problem: str


def _load(predictor: Predictor, wanted: Wanted, job: Job) -> _Loaded | _Failure:
    began = time.perf_counter()
    try:
        image = read_case(job.images)
        prepared = predictor.prepare(image.array, image.spacing)
    except AutosegError as error:
        files = ", ".join(str(path) for path in job.images)
        return _Failure(job, error.problem if str(job.images[0]) in error.problem else f"{files}: {error.problem}")
    except MemoryError:
        return _Failure(job, f"{job.images[0]}: too large for this machine's memory")
    if job.name not in wanted.overlays:
        # Only its shape and geometry are needed from here on.
        image = replace(image, array=np.broadcast_to(np.zeros((), image.array.dtype), image.array.shape))
    return _Loaded(job, image, prepared, time.perf_counter() - began)


def _through_network(predictor: Predictor, loaded: Iterable[_Loaded | _Failure]) -> Iterator[_Inferred | _Failure]:
    """Runs in the thread that asks: one network, all cores. Images wait until they fill a batch."""
    waiting: list[_Loaded] = []
    load = 0
    for item in loaded:
        if isinstance(item, _Failure):
            yield item
            continue
        waiting.append(item)
        load += predictor.load_of(item.prepared)
        if load >= predictor.batch_size:
            yield from _infer(predictor, waiting)
            waiting, load = [], 0
    yield from _infer(predictor, waiting)


def _infer(predictor: Predictor, batch: Sequence[_Loaded]) -> Iterator[_Inferred | _Failure]:
    if not batch:
        return
    began = time.perf_counter()
    try:
        found = predictor.infer([item.prepared for item in batch])
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            yield _Failure(batch[0].job, f"{batch[0].job.images[0]}: too large for the memory of {predictor.device}")
        for item in batch if len(batch) > 1 else ():
            yield from _infer(predictor, [item])
        return
    seconds = (time.perf_counter() - began) / len(batch)
    for item, inferred in zip(batch, found, strict=True):
        yield _Inferred(item, inferred, seconds)


def _is_out_of_memory(error: Exception) -> bool:
    # On processors torch raises a plain RuntimeError, told by its text only.
    known = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def _write(predictor: Predictor, folder: Path, wanted: Wanted, item: _Inferred | _Failure) -> PredictedCase | _Failure:
    if isinstance(item, _Failure):
        return item
    began = time.perf_counter()
    job, size, maps = item.loaded.job, item.loaded.prepared.size, item.inferred.maps
    labels = predictor.label_map(maps, size)
    judged = predictor.judge(item.loaded.prepared, item.inferred, labels)
    write_label(folder / job.output, labels, like=item.loaded.image)
    if wanted.probabilities:
        _write_probabilities(folder / f"{job.name}.npz", restore.resize(maps, size), predictor.scheme)
    if job.name in wanted.overlays:
        reference = read_label(job.reference).array if job.reference is not None else None
        write_overlay(folder / OVERLAYS / f"{job.name}.png", item.loaded.image.array, labels, predictor.scheme, reference)
    seconds = {"read": item.loaded.seconds, "network": item.seconds, "write": time.perf_counter() - began}
    return PredictedCase(
        job.name,
        job.output,
        size,
        judged.pixels,
        {stage: round(value, 4) for stage, value in seconds.items()},
        item.loaded.image.notes,
        judged.confidence,
        judged.warnings,
    )


def _write_probabilities(path: Path, maps: NDArray[Any], scheme: LabelScheme) -> None:
    with replacing(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, probabilities=maps.astype(np.float16), names=np.array(scheme.names))


def _record(
    predictor: Predictor,
    cases: tuple[PredictedCase, ...],
    failed: dict[str, str],
    skipped: tuple[str, ...],
    seconds: float,
) -> PredictionRecord:
    first, knowledge = predictor.members[0], predictor.knowledge
    return PredictionRecord(
        dataset=first.record.dataset,
        models=tuple(dict.fromkeys(member.record.model for member in predictor.members)),
        folds=tuple(dict.fromkeys(member.record.fold for member in predictor.members)),
        identities={f"{m.record.model}/fold_{m.record.fold}": m.record.identity for m in predictor.members},
        labels=predictor.spec.labels,
        mirror=predictor.mirror,
        device=str(predictor.device),
        precision=first.model_plan.precision,
        seconds=round(seconds, 3),
        cases=cases,
        failed=failed,
        skipped=skipped,
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
        calibration=knowledge.calibration,
        postprocessing={name: str(what) for name, what in knowledge.postprocessing.items()},
    )
