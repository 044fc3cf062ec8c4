"""Masks from zero-shot image models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autoseg.api.options import DatasetId, PathLike
from autoseg.schema.omnimodel import READERS, Reader, Threshold
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Root, Workspace, secret

if TYPE_CHECKING:
    from autoseg.io.deidentify import Names
    from autoseg.omnimodel.client import Client
    from autoseg.omnimodel.reader import Task
    from autoseg.prediction.files import PredictionReport
    from autoseg.prediction.inputs import PredictionJob

logger = logging.getLogger(__name__)

# Servers without keys take any word for one, and a model may be called so.
_SHORTEST_KEY = 12


@dataclass(frozen=True, kw_only=True)
class Omnimodel:
    """A zero-shot image model and its options.

    reader: "gemini", "image_edit" or "sam". model: its full name ("" for gemini's default). send_images_to: must be the
    reader's name before any image is sent to it. endpoint: another address with the same API. threshold: "fixed" at
    one half, or "otsu". rate: requests a minute. timeout: seconds for a request. attempts: requests for a question. again:
    ask again if the cached answer has no picture. weights: sam's folder (default: <root>/weights/sam). boxes_from:
    a folder of masks whose objects give sam its boxes.
    """

    reader: Reader
    model: str = ""
    send_images_to: str | None = None
    endpoint: str = ""
    threshold: Threshold = "fixed"
    rate: float = 10.0
    timeout: float = 60.0
    attempts: int = 4
    again: bool = False
    weights: PathLike | None = None
    boxes_from: PathLike | None = None


def ask_omnimodel(
    images: PathLike | Sequence[PathLike],
    output: PathLike,
    dataset: DatasetId,
    omnimodel: Omnimodel,
    *,
    confirm: Callable[[str], bool] | None = None,
    recursive: bool = False,
    names: Names = "auto",
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Predict the classes of a dataset with a zero-shot image model. Files are written as by `predict`.

    Prompts come from the dataset's plan; without a plan, from its labels. Only pixels are sent, only to the
    reader in `send_images_to`, and never twice: answers are cached in <root>/omnimodel. API keys come from the environment
    (GEMINI_API_KEY; AUTOSEG_IMAGE_EDIT_KEY or OPENAI_API_KEY) and are never written.

    Args:
        images: an image file, several, or a folder of images.
        output: folder for the masks, prediction.json and omnimodel.json.
        dataset: id or name of the dataset whose classes to predict.
        omnimodel: the model and its options.
        confirm: called with a question that contains the number of requests; returns whether to send them (default: send).
        recursive: take images of subfolders too.
        names: "auto" replaces file names that could identify a patient, "keep" none, "hide" all.
        device: for sam: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The masks with areas and warnings, and the failed images with the reason.

    Raises:
        AutosegError: consent, a key, boxes or an extra is missing, or `confirm` returned False.
    """
    from autoseg.prediction.inputs import find_jobs

    inputs = Path(images) if isinstance(images, str | Path) else [Path(path) for path in images]
    _, channels = _task(dataset, omnimodel, root)
    jobs = find_jobs(inputs, channels, recursive, Path(output), names, "nii")
    return read_jobs(jobs, Path(output), dataset=dataset, omnimodel=omnimodel, confirm=confirm, device=device, root=root)


def read_jobs(
    jobs: Sequence[PredictionJob],
    output: Path,
    dataset: str | int,
    omnimodel: Omnimodel,
    confirm: Callable[[str], bool] | None,
    device: str,
    root: Root,
    prompts: Mapping[str, str] | None = None,
) -> PredictionReport:
    """Like `ask_omnimodel`, for a list of jobs. prompts: class -> prompt, instead of the plan's."""
    task = _with_prompts(_task(dataset, omnimodel, root)[0], prompts)
    if omnimodel.reader == "sam":
        from autoseg.omnimodel.sam import Sam, read_with_boxes

        if omnimodel.boxes_from is None:
            raise AutosegError("sam needs boxes", "--boxes-from MASKS, or use it as --second-reader sam")
        folder = Path(omnimodel.weights) if omnimodel.weights else Workspace.at(root).weights / "sam"
        return read_with_boxes(Sam(folder, device), jobs, Path(omnimodel.boxes_from), output, task)
    return _ask_service(jobs, output, task, omnimodel, confirm, root)


def mock_jobs(
    jobs: Sequence[PredictionJob],
    output: Path,
    dataset: str | int,
    omnimodel: Omnimodel,
    *,
    prompts: Mapping[str, str] | None = None,
    root: Root = None,
) -> PredictionReport:
    """The same with a stand-in for the service: nothing is sent, no key is needed, and the masks are no model's."""
    from autoseg.omnimodel.client import Cache, Client, RetryPolicy
    from autoseg.omnimodel.mock import MockService
    from autoseg.omnimodel.reader import read_files

    task = _with_prompts(_task(dataset, omnimodel, root)[0], prompts)
    cache = Cache(output.with_name(f"{output.name}_answers"))  # Not among the answers of services.
    client = Client(MockService(), cache, RetryPolicy(rate=0, attempts=1))
    return read_files(client, jobs, output, task)


def _with_prompts(task: Task, prompts: Mapping[str, str] | None) -> Task:
    known = {name: text for name, text in (prompts or {}).items() if name in task.prompts}
    return replace(task, prompts={**task.prompts, **known})


def _ask_service(
    jobs: Sequence[PredictionJob],
    output: Path,
    task: Task,
    omnimodel: Omnimodel,
    confirm: Callable[[str], bool] | None,
    root: Root,
) -> PredictionReport:
    from autoseg.omnimodel.reader import estimate, read_files

    client = _client(omnimodel, root)
    expected = estimate(client, jobs, task)
    logger.info(f"{client.backend.model}: {expected}")
    new = expected.questions - expected.num_cached
    question = f"send {new} requests (at most {new * omnimodel.attempts} with retries) to {omnimodel.reader}?"
    if new and confirm is not None and not confirm(question):
        raise AutosegError("nothing was sent", "answer yes, or add --yes")
    return read_files(client, jobs, output, task)


def _client(omnimodel: Omnimodel, root: Root) -> Client:
    from autoseg.omnimodel import gemini, image_edit
    from autoseg.omnimodel.client import Cache, Client, RetryPolicy, check_consent

    check_consent(omnimodel.reader, omnimodel.send_images_to)
    model, endpoint, timeout = omnimodel.model, omnimodel.endpoint, omnimodel.timeout
    keys = gemini.KEYS if omnimodel.reader == "gemini" else image_edit.KEYS
    key = secret(*keys)
    known = [secret(name) for name in (*gemini.KEYS, *image_edit.KEYS)]
    _check_key(key, keys)
    _check_endpoint(endpoint)
    if any(len(one) >= _SHORTEST_KEY and one in text for one in known for text in (model, endpoint)):
        raise AutosegError("the endpoint or the model's name holds the key", "both are written into omnimodel.json")
    backend: gemini.Gemini | image_edit.ImageEdit
    if omnimodel.reader == "gemini":
        if not key:
            raise AutosegError("gemini needs a key", f"set the environment variable {keys[0]}; it is never written")
        backend = gemini.Gemini(key, model, endpoint, timeout)
    else:
        backend = image_edit.ImageEdit(key, model, endpoint, timeout)
    retry_policy = RetryPolicy(omnimodel.rate, omnimodel.attempts)
    return Client(backend, Cache(Workspace.at(root).root / "omnimodel"), retry_policy, omnimodel.again, keys=known)


def _check_key(key: str, variables: Sequence[str]) -> None:
    """Raises AutosegError, without the key, for one that no header can hold: errors of packages would show it."""
    if not all(33 <= ord(letter) <= 126 for letter in key):
        raise AutosegError("the key holds a space, a line break or a letter beyond ASCII", f"correct {' or '.join(variables)}")


def _check_endpoint(endpoint: str) -> None:
    """Raises AutosegError for an address that holds a password or a key: it is written into omnimodel.json."""
    try:
        parts = urlsplit(endpoint)
        has_secret = "@" in endpoint or bool(parts.query or parts.fragment)
        is_address = not endpoint or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        has_secret, is_address = False, False
    if has_secret:
        raise AutosegError("the endpoint holds a password or a query", "give the address alone, and the key in its variable")
    if not is_address:
        raise AutosegError("the endpoint is no address", "--endpoint http://server:8000/v1")


def _task(dataset: str | int, omnimodel: Omnimodel, root: Root) -> tuple[Task, int]:
    """The task for a dataset, and the number of channels of its images."""
    from autoseg.io.raw_dataset import read_description
    from autoseg.omnimodel.reader import Task
    from autoseg.planning.prompts import prompts
    from autoseg.schema.plan import Plan
    from autoseg.support.files import read_artefact

    if omnimodel.reader not in READERS:
        raise AutosegError(f"there is no reader {omnimodel.reader!r}", f"choose one of {', '.join(READERS)}")
    if omnimodel.threshold not in ("fixed", "otsu"):
        raise AutosegError(f"there is no threshold {omnimodel.threshold!r}", "choose fixed or otsu")
    if omnimodel.attempts < 1 or omnimodel.timeout <= 0:
        raise AutosegError("attempts and timeout must be positive", "set --attempts to 1 or more, and --timeout above 0")
    data = Workspace.at(root).dataset(dataset)
    spec = read_description(data.description)
    try:
        scheme = spec.label_scheme()
    except ValueError as error:
        raise AutosegError(f"{data.description}: {error}", "correct its labels") from error
    planned_prompts = dict(read_artefact(data.plan, Plan).prompts) if data.plan.is_file() else {}
    default_prompts = prompts(list(scheme.foreground), f"{spec.modality} {data.short_name}")
    class_prompts = {name: planned_prompts.get(name) or default_prompts[name] for name in scheme.foreground}
    return Task(
        dataset=data.name, labels=spec.labels, scheme=scheme, prompts=class_prompts, threshold=omnimodel.threshold
    ), len(spec.channel_names)
