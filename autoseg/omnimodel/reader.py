"""Zero-shot masks: one question per image and class; the answers become masks, then one label map."""

from __future__ import annotations

import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import autoseg
from autoseg.io import write_label
from autoseg.omnimodel.answers import EchoedImage, UnreadableAnswer, read_answer
from autoseg.omnimodel.client import Client, Reply
from autoseg.omnimodel.pictures import Picture, load_picture
from autoseg.prediction.files import PredictionReport
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.progress_log import RECORD, other_cases
from autoseg.schema.dataset import LabelScheme, LabelValue
from autoseg.schema.omnimodel import FAMILY, OmnimodelRecord, Outcome, QuestionRecord, Threshold
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, hash_text, read_artefact, write_artefact
from autoseg.support.log import progress_bar

ANSWERS, RECORD_FILE = "answers", "omnimodel.json"
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to segment. prompts: class -> prompt, for every foreground class of the scheme."""

    dataset: str
    labels: Mapping[str, LabelValue]
    scheme: LabelScheme
    prompts: Mapping[str, str]
    threshold: Threshold = "fixed"


@dataclass(frozen=True)
class Estimate:
    """questions: in total. num_cached: answered earlier, so they need no request."""

    images: int
    questions: int
    num_cached: int

    def __str__(self) -> str:
        new = self.questions - self.num_cached
        return f"{self.images} images, {self.questions} questions: {new} to be sent, {self.num_cached} answered already"


@dataclass
class _Case:
    """Masks and questions of one case."""

    masks: dict[str, Mask] = field(default_factory=dict)
    questions: list[QuestionRecord] = field(default_factory=list)


def estimate(client: Client, jobs: Sequence[PredictionJob], task: Task) -> Estimate:
    """Number of requests that these images would need. Sends nothing."""
    num_cached = 0
    for job in progress_bar(jobs, "looking up cached answers", len(jobs)):
        try:
            picture = load_picture(job)
        except AutosegError:
            # `read_files` reports it; nothing of it is sent.
            continue
        num_cached += sum(client.cached_answer(picture.sha256, prompt) is not None for prompt in task.prompts.values())
    return Estimate(len(jobs), len(jobs) * len(task.prompts), num_cached)


def read_files(client: Client, jobs: Sequence[PredictionJob], output: Path, task: Task) -> PredictionReport:
    """Write masks of the jobs' images to `output`, with prediction.json in the same form as for trained models.

    Also writes the original answers to answers/<case>.<class>.<suffix>, and omnimodel.json with the outcome of every question.
    A case without a usable answer for every class fails; the others continue. Raises AutosegError if the service cannot
    be used at all; earlier answers stay in the cache.
    """
    start_time, backend = time.perf_counter(), client.backend
    identity = hash_text(backend.name, backend.model, *task.prompts.values(), task.threshold)
    target = open_output(output, task, jobs, reader=backend.name, identity=identity, device="service")
    predicted: list[PredictedCase] = []
    failed: dict[str, str] = {}
    questions = [*_earlier_questions(target)]
    for job in progress_bar(jobs, f"asking {backend.model}", len(jobs)):
        case_start = time.perf_counter()
        try:
            picture = load_picture(job)
        except AutosegError as error:
            failed[job.name] = job.redact(error.problem)
            continue
        case = _ask(client, job, picture, output, task)
        questions += case.questions
        unusable = [question for question in case.questions if question.outcome != "mask"]
        faults = [f"{question.label}: {question.outcome}, {question.message or 'no picture'}" for question in unusable]
        if faults:
            failed[job.name] = "; ".join(faults)
            continue
        labels = merge_masks(case.masks, task.scheme)
        notes = tuple(f"{question.label}: {note}" for question in case.questions for note in question.notes)
        predicted.append(
            save_case(
                output,
                job,
                picture=picture,
                labels=labels,
                scheme=task.scheme,
                seconds=time.perf_counter() - case_start,
                notes=notes,
            )
        )
    record = OmnimodelRecord(
        reader=backend.name,
        model=backend.model,
        family=FAMILY,
        endpoint=backend.endpoint,
        threshold=task.threshold,
        prompts=dict(task.prompts),
        questions=tuple(questions),
        counts=count(questions),
    )
    write_artefact(output / RECORD_FILE, record)
    return target.write_record(predicted, failed, time.perf_counter() - start_time)


def count(questions: Sequence[QuestionRecord]) -> dict[str, int]:
    """Numbers of questions, requests, cached answers, and of each outcome and correction."""
    totals: Counter[str] = Counter({"questions": len(questions), "requests": sum(question.requests for question in questions)})
    for question in questions:
        totals[question.outcome] += 1
        totals["cached"] += question.cached
        totals.update(question.notes)
    return dict(totals)


def merge_masks(masks: Mapping[str, Mask], scheme: LabelScheme) -> NDArray[np.uint8]:
    """Merges the masks of all classes to one label map (H, W).

    A pixel in several masks gets the class of the smallest mask, because a structure inside another one is smaller.
    Regions are painted in their defined order.
    """
    first_mask = next(iter(masks.values()))
    labels = np.zeros(first_mask.shape, np.uint8)
    if scheme.regions:
        for name, value in zip(scheme.names, scheme.paint, strict=True):
            labels[masks[name]] = value
        return labels
    for name in sorted(masks, key=lambda name: -int(masks[name].sum())):
        labels[masks[name]] = scheme.foreground[name][0]
    return labels


def save_case(
    folder: Path,
    job: PredictionJob,
    picture: Picture,
    labels: NDArray[np.uint8],
    scheme: LabelScheme,
    seconds: float,
    notes: tuple[str, ...],
) -> PredictedCase:
    """Write the label map (h, w), resized to the original image's size."""
    size = picture.size
    if labels.shape != size:
        labels = np.asarray(cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
    write_label(folder / job.output, labels, like=picture.like)
    pixels = {name: int(np.isin(labels, member).sum()) for name, member in scheme.foreground.items()}
    warnings = () if any(pixels.values()) else ("nothing was found",)
    return PredictedCase(
        case=job.name, output=job.output, size=size, pixels=pixels, seconds={"all": round(seconds, 4)},
        notes=picture.like.notes + notes, confidence=None, warnings=warnings, sha256=picture.sha256, frame=job.frame,
    )  # fmt: skip


@dataclass(frozen=True)
class Output:
    """A folder for masks. run: the record without cases. others, failed: what earlier runs of the same reader left there."""

    folder: Path
    run: PredictionRecord
    others: Mapping[str, PredictedCase]
    failed: Mapping[str, str]

    def write_record(self, cases: Sequence[PredictedCase], failed: Mapping[str, str], seconds: float) -> PredictionReport:
        """Write prediction.json."""
        record = replace(
            self.run, cases=(*self.others.values(), *cases), failed={**self.failed, **failed}, skipped=tuple(self.others),
            seconds=round(seconds, 3),
        )  # fmt: skip
        write_artefact(self.folder / RECORD, record)
        return PredictionReport(self.folder, record)


def open_output(folder: Path, task: Task, jobs: Sequence[PredictionJob], reader: str, identity: str, device: str) -> Output:
    """The folder for the masks of the jobs. Raises AutosegError if it holds masks of another reader."""
    run = PredictionRecord(
        dataset=task.dataset,
        models=(reader,),
        folds=(),
        identities={reader: identity},
        labels=dict(task.labels),
        mirror=(),
        device=device,
        precision="",
        seconds=0.0,
        cases=(),
        versions={"autoseg": autoseg.__version__, "python": platform.python_version()},
    )
    return Output(folder, run, *other_cases(folder, run, {job.name for job in jobs}))


def _earlier_questions(output: Output) -> tuple[QuestionRecord, ...]:
    """Questions of earlier runs about cases that stay in the folder."""
    path = output.folder / RECORD_FILE
    if not path.is_file():
        return ()
    earlier = read_artefact(path, OmnimodelRecord, f"delete {path}")
    return tuple(question for question in earlier.questions if question.case in {*output.others, *output.failed})


def _ask(client: Client, job: PredictionJob, picture: Picture, folder: Path, task: Task) -> _Case:
    case = _Case()
    for label, prompt in task.prompts.items():
        reply = client.ask(picture.png, picture.sha256, prompt)
        save = partial(_save_answer, folder, job.name, label)
        outcome, message, notes, file = _process_reply(reply, picture, save, task, case, label)
        case.questions.append(
            QuestionRecord(
                case=job.name,
                label=label,
                outcome=outcome,
                cached=reply.cached,
                requests=reply.tries,
                notes=notes,
                file=file,
                message=message,
            )
        )
    return case


def _process_reply(
    reply: Reply, picture: Picture, save: Callable[[bytes], str], task: Task, case: _Case, label: str
) -> tuple[Outcome, str, tuple[str, ...], str]:
    """Outcome, message, notes and file of a reply. Adds its mask to the case."""
    if reply.answer is None:
        return "failed", reply.failure, (), ""
    if reply.answer.picture is None:
        return "refused" if reply.answer.refused else "text", reply.answer.text, (), ""
    file = save(reply.answer.picture)
    try:
        result = read_answer(reply.answer.picture, picture.pixels, task.threshold)
    except EchoedImage:
        return "echo", "the answer is the image that was sent", (), file
    except UnreadableAnswer:
        return "failed", "the answer is not an image file", (), file
    case.masks[label] = result.mask
    return "mask", reply.answer.text, result.notes, file


def _save_answer(folder: Path, case: str, label: str, picture: bytes) -> str:
    """Save the original answer; returns its path relative to the folder."""
    suffixes = {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpg", b"\xff\xd8\xff\xe1": "jpg", b"RIFF": "webp"}
    name = f"{ANSWERS}/{case}.{re.sub(r'[^A-Za-z0-9]+', '_', label)}.{suffixes.get(picture[:4], 'bin')}"
    with atomic_write(folder / name) as temporary:
        temporary.write_bytes(picture)
    return name
