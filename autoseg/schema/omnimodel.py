"""What asking a zero-shot image model left: `omnimodel.json` beside the masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from autoseg.schema.artefact import Artefact

# Readers that are not trained here. gemini and image_edit are services; sam runs on this machine.
Reader = Literal["gemini", "image_edit", "sam"]
READERS: tuple[Reader, ...] = ("gemini", "image_edit", "sam")
SERVICES: tuple[Reader, ...] = ("gemini", "image_edit")
FAMILY = "omnimodel"

Threshold = Literal["fixed", "otsu"]
Outcome = Literal["mask", "refused", "text", "echo", "failed"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question: one class of one case. outcome: "mask" or why there is none. notes: what had to be mended in the answer.

    cached: answered earlier, so nothing was sent. tries: requests it took. file: of the raw answer, within the folder.
    says: the answer's text, or what went wrong.
    """

    case: str
    label: str
    outcome: Outcome
    cached: bool
    tries: int
    notes: tuple[str, ...] = ()
    file: str = ""
    says: str = ""


@dataclass(frozen=True)
class CachedAnswer(Artefact):
    """A file of `<root>/omnimodel/`: what a service answered. picture: whether one came; it lies beside in a file `.bin`."""

    NAME = "answer"
    VERSION = 1
    UNMARKED = True

    picture: bool
    text: str = ""
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class OmnimodelRecord(Artefact):
    """`omnimodel.json`. model: its full name. endpoint: where it was asked, "" for the service's own address.

    threshold: how pictures became masks. prompts: class -> words. counts: see `reader.count`. Never holds a key.
    """

    NAME = "omnimodel"
    VERSION = 1

    reader: str
    model: str
    family: str
    endpoint: str
    threshold: str
    prompts: dict[str, str]
    asked: tuple[Asked, ...]
    counts: dict[str, int] = field(default_factory=dict)
