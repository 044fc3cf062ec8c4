"""Image files to masks: one bad file does not stop the others, and a killed run can be gone on with."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import autoseg
from autoseg.io import is_image, stem_of
from autoseg.prediction import pipeline
from autoseg.prediction.deidentify import Names
from autoseg.prediction.inputs import DicomMasks, PredictionJob, find_jobs
from autoseg.prediction.pipeline import Failure, Wanted
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.progress_log import RECORD, ProgressLog, known_cases
from autoseg.schema.frame import Row, Tabular
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import write_artefact
from autoseg.support.log import progress_bar


@dataclass(frozen=True, repr=False)
class PredictionReport(Tabular):
    """What came of a run; its text is for people. failed: case -> what was wrong."""

    folder: Path
    record: PredictionRecord

    @property
    def failed(self) -> dict[str, str]:
        return self.record.failed

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the masks that were written by this run."""
        return tuple(case.case for case in self.record.cases if case.case not in self.record.skipped)

    def __str__(self) -> str:
        count = len(self.cases)
        lines = [f"{count} mask{'s' if count != 1 else ''} in {self.folder} ({self.record.seconds:.1f} s)"]
        if self.record.skipped:
            lines.append(f"{len(self.record.skipped)} were there already and were left as they are")
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
    workers: int | None = None,
) -> PredictionReport:
    """Masks of a folder of images (see `find_jobs`), one image or a list of them, written to the folder `output`.

    A mask has its image's name, size and geometry, and its format where that keeps label values (JPEG becomes PNG; for
    DICOM see `dicom_masks` of `find_jobs`). names: see `naming`; a name that could tell who is shown gives way to a neutral
    one. probabilities: also <case>.npz with float16 "probabilities" (K, H, W) at the image's size and their "names".
    overlays: also overlays/<case>.png; references: a folder of masks to draw into them. overwrite: False goes on with what
    an earlier run of the same kind left. Unreadable and ill-fitting images are named in the report, the rest is done;
    strict: the first one stops the run. Raises AutosegError where there is nothing to predict or the output cannot be
    written.
    """
    if output.exists() and not output.is_dir():
        raise AutosegError(f"{output} is a file", "give a folder for the masks")
    jobs = find_jobs(inputs, predictor.channels, recursive, output, names, dicom_masks)
    if references is not None:
        known = {stem_of(path): path for path in references.iterdir() if is_image(path)} if references.is_dir() else {}
        jobs = [replace(job, reference=known.get(stem_of(job.images[0])) or known.get(Path(job.name).name)) for job in jobs]
    drawn = frozenset(job.name for job in jobs) if overlays else frozenset()
    wanted = Wanted(probabilities, drawn, names == "keep")
    return predict_jobs(predictor, jobs, output, wanted, overwrite=overwrite, strict=strict, workers=workers)


def predict_jobs(
    predictor: Predictor,
    jobs: Sequence[PredictionJob],
    folder: Path,
    wanted: Wanted,
    *,
    overwrite: bool = True,
    strict: bool = False,
    workers: int | None = None,
) -> PredictionReport:
    """The same for jobs that are known already. `prediction.json` is written last."""
    began = time.perf_counter()
    run = _record(predictor)
    there = {} if overwrite else known_cases(folder, run)
    done = {job.name: there[job.name] for job in jobs if job.name in there and _is_same(job, there[job.name])}
    left = [job for job in jobs if job.name not in done]
    skipped, failed = tuple(done), {}
    with ProgressLog(folder, run, done) as journal:
        for result in progress_bar(pipeline.run(predictor, left, folder, wanted, workers), "predicting", len(left)):
            if isinstance(result, Failure):
                if strict:
                    raise AutosegError(result.problem, "mend or remove it; --continue goes on where this run stopped")
                failed[result.job.name] = result.problem
            else:
                done[result.case] = result
                journal.add(result)
        record = replace(
            run,
            cases=tuple(done[job.name] for job in jobs if job.name in done),
            failed=failed,
            skipped=skipped,
            seconds=round(time.perf_counter() - began, 3),
        )
        write_artefact(folder / RECORD, record)
        journal.finished()
    return PredictionReport(folder, record)


def _is_same(job: PredictionJob, case: PredictedCase) -> bool:
    """Whether a mask that is there was made from the file as it is now."""
    try:
        return pipeline.content_hash(job) == case.sha256
    except OSError:
        return False


def _record(predictor: Predictor) -> PredictionRecord:
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
        seconds=0.0,
        cases=(),
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
        calibration=knowledge.calibration,
        postprocessing={name: str(what) for name, what in knowledge.postprocessing.items()},
    )
