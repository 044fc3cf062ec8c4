"""Predict image files: one bad file does not stop the others, and an interrupted run can be resumed."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import autoseg
from autoseg.io import is_image, stem_of
from autoseg.io.deidentify import Names
from autoseg.prediction import pipeline
from autoseg.prediction.inputs import DicomMasks, PredictionJob, find_jobs
from autoseg.prediction.large_image import is_large
from autoseg.prediction.pipeline import Failure, OutputOptions
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.progress_log import RECORD, ProgressLog, finished_cases, other_cases, refuse_foreign_masks
from autoseg.schema.frame import Row, Tabular
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import write_artefact
from autoseg.support.log import progress_bar
from autoseg.support.os_errors import os_errors_as_autoseg_errors


@dataclass(frozen=True, repr=False)
class PredictionReport(Tabular):
    """Result of a run; str() gives a text for people. failed: case -> problem. visible: whether masks have colours."""

    folder: Path
    record: PredictionRecord
    visible: bool = False

    @property
    def failed(self) -> dict[str, str]:
        return self.record.failed

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases this run predicted."""
        return tuple(case.case for case in self.record.cases if case.case not in self.record.skipped)

    def __str__(self) -> str:
        count = len(self.cases)
        lines = [f"{count} mask{'s' if count != 1 else ''} in {self.folder} ({self.record.seconds:.1f} s)"]
        if self.record.skipped:
            lines.append(f"{len(self.record.skipped)} were there already and were not predicted again")
        png = any(case.output.endswith(".png") for case in self.record.cases)
        if count and png and not self.visible:
            labels = ", ".join(f"{value} {name}" for name, value in self.record.labels.items() if isinstance(value, int))
            lines.append(f"pixels are class numbers ({labels}), which viewers show black; --visible adds colours")
        warned = sum(bool(case.warnings) for case in self.record.cases)
        if warned:
            lines.append(f"{warned} with warnings: see {RECORD}, or --review-list")
        if self.failed:
            lines.append(f"{len(self.failed)} could not be predicted:")
            lines += [f"  - {case}: {problem}" for case, problem in self.failed.items()]
        return "\n".join(lines)

    def summary(self) -> str:
        return f"{self.record.summary()}; in {self.folder}"

    def to_rows(self) -> list[Row]:
        return self.record.to_rows()


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
    strict: bool = False,
    names: Names = "auto",
    dicom_masks: DicomMasks | None = None,
    visible: bool = False,
    workers: int | None = None,
) -> PredictionReport:
    """Predict a folder of images (see `find_jobs`), one image or a list; write the masks to the folder `output`.

    A mask has its image's name, size and geometry, and its format unless that is lossy (JPEG becomes PNG; for DICOM see
    `dicom_masks` of `find_jobs`).

    probabilities: also write <case>.npz with "probabilities" (K, H, W) float16 at the image's size, and "names".
    overlays: also write overlays/<case>.png. references: a folder of masks to draw into the overlays.
    visible: PNG masks get a palette of colours; their values stay class numbers.
    overwrite: False resumes an earlier run of the same networks. Masks of other images stay in the folder and in
    prediction.json, if they are of the same networks; else the folder is refused. names: see `deidentify`.
    strict: the first unreadable or unsuitable image stops the run; otherwise the report names it.
    Raises AutosegError if there is no image or the output cannot be written.
    """
    with os_errors_as_autoseg_errors(output):
        if output.exists() and not output.is_dir():
            raise AutosegError(f"{output} is a file", "give a folder for the masks")
    jobs = find_jobs(inputs, predictor.channels, recursive, output, names, dicom_masks)
    if references is not None:
        masks = {stem_of(path): path for path in references.iterdir() if is_image(path)} if references.is_dir() else {}
        jobs = [replace(job, reference=masks.get(stem_of(job.images[0])) or masks.get(Path(job.name).name)) for job in jobs]
    drawn = frozenset(job.name for job in jobs) if overlays else frozenset()
    options = OutputOptions(probabilities, drawn, names == "keep", visible)
    return predict_jobs(predictor, jobs, output, options, overwrite=overwrite, strict=strict, workers=workers)


def predict_jobs(
    predictor: Predictor,
    jobs: Sequence[PredictionJob],
    folder: Path,
    options: OutputOptions,
    *,
    overwrite: bool = True,
    strict: bool = False,
    workers: int | None = None,
) -> PredictionReport:
    """Like `predict_files`, for a list of jobs. Writes `prediction.json` last; cases of earlier runs stay in it."""
    began = time.perf_counter()
    run = _record(predictor)
    refuse_foreign_masks(folder, (job.output for job in jobs))
    others, other_failures = other_cases(folder, run, {job.name for job in jobs})
    earlier = {} if overwrite else finished_cases(folder, run)
    done = {
        job.name: earlier[job.name]
        for job in jobs
        if job.name in earlier and _is_unchanged(job, earlier[job.name]) and _has_outputs(job, folder, options)
    }
    remaining = [job for job in jobs if job.name not in done]
    skipped, failed = (*others, *done), dict(other_failures)
    with ProgressLog(folder, run, {**others, **done}) as log:
        for result in progress_bar(pipeline.run(predictor, remaining, folder, options, workers), "predicting", len(remaining)):
            if isinstance(result, Failure):
                if strict:
                    raise AutosegError(result.problem, "fix or remove it, then resume this run with --continue")
                failed[result.job.name] = result.problem
            else:
                done[result.case] = result
                log.add(result)
        record = replace(
            run,
            cases=(*others.values(), *(done[job.name] for job in jobs if job.name in done)),
            failed=failed,
            skipped=skipped,
            seconds=round(time.perf_counter() - began, 3),
        )
        write_artefact(folder / RECORD, record)
        log.finish()
    return PredictionReport(folder, record, options.visible)


def _is_unchanged(job: PredictionJob, case: PredictedCase) -> bool:
    """True if the case was predicted from the file's present content, into the same mask."""
    try:
        return (job.output, job.frame) == (case.output, case.frame) and pipeline.content_hash(job) == case.sha256
    except OSError:
        return False


def _has_outputs(job: PredictionJob, folder: Path, options: OutputOptions) -> bool:
    """Whether the files that are asked for besides the mask exist. Very large images have no probabilities."""
    probabilities = not options.probabilities or (folder / f"{job.name}.npz").is_file() or is_large(job)
    return probabilities and (job.name not in options.overlays or (folder / pipeline.OVERLAYS / f"{job.name}.png").is_file())


def _record(predictor: Predictor) -> PredictionRecord:
    metadata = predictor.metadata
    return PredictionRecord(
        dataset=predictor.dataset,
        models=predictor.models,
        folds=predictor.folds,
        identities=predictor.identities,
        labels=predictor.spec.labels,
        mirror=predictor.mirror,
        device=str(predictor.device),
        precision=predictor.precision,
        seconds=0.0,
        cases=(),
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
        calibration=metadata.calibration,
        postprocessing={name: str(what) for name, what in metadata.postprocessing.items()},
    )
