"""Record of requests to a zero-shot image model: `omnimodel.json` next to the masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.limits import Count, FileName, PathBelow, PathBelowOrNone

# Readers without training in autoseg. gemini and image_edit are services; sam runs on this machine.
Reader = Literal["gemini", "image_edit", "sam"]
READERS: tuple[Reader, ...] = ("gemini", "image_edit", "sam")
SERVICES: tuple[Reader, ...] = ("gemini", "image_edit")
FAMILY = "omnimodel"

Threshold = Literal["fixed", "otsu"]
Outcome = Literal["mask", "refused", "text", "echo", "failed"]


@dataclass(frozen=True, kw_only=True)
class QuestionRecord:
    """One question: one class of one case. outcome: "mask" or why there is none. notes: corrections of the answer.

    cached: answered earlier, so nothing was sent. requests: number of requests sent. file: path of the raw answer in the
    folder. message: the answer's text, or the error.
    """

    case: PathBelow
    label: FileName
    outcome: Outcome
    cached: bool
    requests: Count
    notes: tuple[str, ...] = ()
    file: PathBelowOrNone = ""
    message: str = ""


@dataclass(frozen=True)
class CachedAnswer(Artefact):
    """A file of `<root>/omnimodel/`: the answer of a service. picture: True if it has one, stored next to it as `.bin`."""

    NAME = "answer"
    VERSION = 1
    UNMARKED = True

    picture: bool
    text: str = ""
    refused: bool = False


def _to_version_2(content: Content) -> Content:
    rename(content, "asked", "questions")
    for question in content["questions"]:
        rename(question, "tries", "requests")
        rename(question, "says", "message")
    return content


@dataclass(frozen=True, kw_only=True)
class OmnimodelRecord(Artefact):
    """`omnimodel.json`. model: its full name. endpoint: its address, "" for the service's own.

    threshold: for pictures to masks. prompts: class -> prompt. counts: see `reader.count`. Never contains a key.
    """

    NAME = "omnimodel"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)

    reader: str
    model: str
    family: str
    endpoint: str
    threshold: str
    prompts: dict[FileName, str]
    questions: tuple[QuestionRecord, ...]
    counts: dict[str, Count] = field(default_factory=dict)
