"""Zero-shot masks: one question per image and class; the answers become masks, then one label map."""

from __future__ import annotations

import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import autoseg
from autoseg.io import write_label
from autoseg.omnimodel.answers import Echo, Unreadable, read_answer
from autoseg.omnimodel.client import Client, Reply
from autoseg.omnimodel.pictures import Picture, picture_of
from autoseg.prediction.files import PredictionReport
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.progress_log import RECORD
from autoseg.schema.dataset import LabelScheme, LabelValue
from autoseg.schema.omnimodel import FAMILY, Asked, OmnimodelRecord, Outcome, Threshold
from autoseg.schema.prediction import PredictedCase, PredictionRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, hash_text, write_artefact
from autoseg.support.log import progress_bar

ANSWERS, ASKED = "answers", "omnimodel.json"
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
    """questions: in all; known: of these, answered already and free."""

    images: int
    questions: int
    known: int

    def __str__(self) -> str:
        new = self.questions - self.known
        return f"{self.images} images, {self.questions} questions: {new} to be sent, {self.known} answered already"


@dataclass
class _Case:
    """One case while it is read."""

    masks: dict[str, Mask] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)


def estimate(client: Client, jobs: Sequence[PredictionJob], task: Task) -> Estimate:
    """What asking about these images would take. Sends nothing."""
    known = 0
    for job in progress_bar(jobs, "counting what is known", len(jobs)):
        try:
            picture = picture_of(job)
        except AutosegError:
            # It is reported when its turn comes; nothing is sent of it.
            continue
        known += sum(client.known(picture.sha256, prompt) is not None for prompt in task.prompts.values())
    return Estimate(len(jobs), len(jobs) * len(task.prompts), known)


def read_files(client: Client, jobs: Sequence[PredictionJob], output: Path, task: Task) -> PredictionReport:
    """Masks of the jobs' images in `output`, with prediction.json as trained models leave it.

    Also writes the original answers to answers/<case>.<class>.<suffix>, and omnimodel.json with the outcome of every question.
    A case without a usable answer for every class fails; the others continue. Raises AutosegError if the service cannot
    be used at all; earlier answers stay in the cache.
    """
    began = time.perf_counter()
    done: list[PredictedCase] = []
    failed: dict[str, str] = {}
    asked: list[Asked] = []
    for job in progress_bar(jobs, f"asking {client.backend.model}", len(jobs)):
        started = time.perf_counter()
        try:
            picture = picture_of(job)
        except AutosegError as error:
            failed[job.name] = job.redact(error.problem)
            continue
        case = _ask(client, job, picture, output, task)
        asked += case.asked
        faults = [f"{one.label}: {one.outcome}, {one.message or 'no picture'}" for one in case.asked if one.outcome != "mask"]
        if faults:
            failed[job.name] = "; ".join(faults)
            continue
        labels = put_together(case.masks, task.scheme)
        notes = tuple(f"{one.label}: {note}" for one in case.asked for note in one.notes)
        done.append(
            save_case(
                output,
                job,
                picture=picture,
                labels=labels,
                scheme=task.scheme,
                seconds=time.perf_counter() - started,
                notes=notes,
            )
        )
    backend = client.backend
    record = OmnimodelRecord(
        reader=backend.name,
        model=backend.model,
        family=FAMILY,
        endpoint=backend.endpoint,
        threshold=task.threshold,
        prompts=dict(task.prompts),
        questions=tuple(asked),
        counts=count(asked),
    )
    write_artefact(output / ASKED, record)
    identity = hash_text(backend.name, backend.model, *task.prompts.values(), task.threshold)
    return finish(
        output,
        task,
        reader=backend.name,
        identity=identity,
        device="service",
        cases=done,
        failed=failed,
        seconds=time.perf_counter() - began,
    )


def count(asked: Sequence[Asked]) -> dict[str, int]:
    """How many questions there were, requests sent, answers from the cache, outcomes and corrections of each kind."""
    totals: Counter[str] = Counter({"questions": len(asked), "requests": sum(one.requests for one in asked)})
    for one in asked:
        totals[one.outcome] += 1
        totals["cached"] += one.cached
        totals.update(one.notes)
    return dict(totals)


def put_together(masks: Mapping[str, Mask], scheme: LabelScheme) -> NDArray[np.uint8]:
    """One label map (H, W) of each class's mask.

    A pixel that several classes claim goes to the smallest of them: what lies inside something else is smaller. Regions
    are painted in their own order.
    """
    first = next(iter(masks.values()))
    labels = np.zeros(first.shape, np.uint8)
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
    """Write a mask (h, w) at the image's own size."""
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


def finish(
    folder: Path,
    task: Task,
    reader: str,
    identity: str,
    device: str,
    cases: Sequence[PredictedCase],
    failed: dict[str, str],
    seconds: float,
) -> PredictionReport:
    """Write prediction.json."""
    record = PredictionRecord(
        dataset=task.dataset,
        models=(reader,),
        folds=(),
        identities={reader: identity},
        labels=dict(task.labels),
        mirror=(),
        device=device,
        precision="",
        seconds=round(seconds, 3),
        cases=tuple(cases),
        failed=failed,
        versions={"autoseg": autoseg.__version__, "python": platform.python_version()},
    )
    write_artefact(folder / RECORD, record)
    return PredictionReport(folder, record)


def _ask(client: Client, job: PredictionJob, picture: Picture, folder: Path, task: Task) -> _Case:
    case = _Case()
    for label, prompt in task.prompts.items():
        reply = client.ask(picture.png, picture.sha256, prompt)
        outcome, says, notes, file = _understand(reply, picture, partial(_keep, folder, job.name, label), task, case, label)
        case.asked.append(Asked(
            case=job.name, label=label, outcome=outcome, cached=reply.cached, requests=reply.tries, notes=notes, file=file,
            message=says,
        ))
    return case


def _understand(
    reply: Reply, picture: Picture, keep: Callable[[bytes], str], task: Task, case: _Case, label: str
) -> tuple[Outcome, str, tuple[str, ...], str]:
    """Outcome, words, notes and file of a reply; its mask goes into the case."""
    if reply.answer is None:
        return "failed", reply.failure, (), ""
    if reply.answer.picture is None:
        return "refused" if reply.answer.refused else "text", reply.answer.text, (), ""
    file = keep(reply.answer.picture)
    try:
        drawn = read_answer(reply.answer.picture, picture.pixels, task.threshold)
    except Echo:
        return "echo", "the image itself came back", (), file
    except Unreadable:
        return "failed", "the answer is no picture", (), file
    case.masks[label] = drawn.mask
    return "mask", reply.answer.text, drawn.notes, file


def _keep(folder: Path, case: str, label: str, picture: bytes) -> str:
    """Save the original answer; returns its path relative to the folder."""
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpg", b"\xff\xd8\xff\xe1": "jpg", b"RIFF": "webp"}
    name = f"{ANSWERS}/{case}.{re.sub(r'[^A-Za-z0-9]+', '_', label)}.{kinds.get(picture[:4], 'bin')}"
    with atomic_write(folder / name) as temporary:
        temporary.write_bytes(picture)
    return name
