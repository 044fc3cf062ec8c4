"""Fetches published weights: the only module that opens connections, and only when it is called."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from autoseg.models import registry
from autoseg.models.published_weights import PublishedWeights
from autoseg.schema.plan import Plan
from autoseg.schema.weights import WeightsRecord
from autoseg.support.errors import AutosegError
from autoseg.weights.add import copy_file, files_below, matching
from autoseg.weights.catalogue import choose, parse_request, split_request
from autoseg.weights.connection import hosts, hub_endpoint, refuse_offline, without_secrets
from autoseg.weights.download import Remote, discard, download
from autoseg.weights.store import WeightsFolder, check_content, file_in_package, new_record
from autoseg.weights.verify import check_fit

logger = logging.getLogger(__name__)

_PART = ".part"


@dataclass(frozen=True)
class Wanted:
    """A file to fetch. models: MODEL:VARIANT that asked for it."""

    weights: PublishedWeights
    models: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where files come from. mirror: a web server with the layout of the weights folder, instead of the publishers. folder:
    of files, instead of any server. with_token: send the token of the Hugging Face hub."""

    mirror: str = ""
    folder: Path | None = None
    with_token: bool = False

    def address(self, weights: PublishedWeights) -> str:
        """Where a file will come from, for the user to see."""
        if self.folder is not None:
            return str(self.folder)
        if self.mirror:
            return f"{self.mirror.rstrip('/')}/{quote(weights.path)}"
        return weights.address.replace("https://huggingface.co", hub_endpoint()) if weights.repository else weights.address

    def hosts(self, weights: PublishedWeights) -> tuple[str, ...]:
        """Hosts that will be connected to."""
        return () if self.folder is not None else hosts(self.address(weights))


def wanted_files(
    requests: Sequence[str], folder: WeightsFolder, *, file: str = "", commercial: bool = False
) -> list[Wanted]:
    """The files that are missing for some MODEL or MODEL:VARIANT. file: this one, although others may be present.

    commercial: only files whose licence allows commercial use. Raises AutosegError for unknown names, and for a model without
    published weights.
    """
    models: dict[str, list[str]] = {}
    weights: dict[str, PublishedWeights] = {}
    for request in requests:
        spec, variant = parse_request(request)

        def is_present(one: PublishedWeights) -> bool:
            return folder.find(one) is not None or file_in_package(one) is not None

        for one in choose(spec, variant, is_present, file=file, commercial=commercial):
            weights[one.path] = one
            models.setdefault(one.path, []).append(f"{spec.name}:{variant}")
    return [Wanted(one, tuple(models[path])) for path, one in weights.items()]


def requests_of_plan(plan: Plan) -> list[str]:
    """MODEL:VARIANT of every model of a plan that starts from published weights."""
    return [f"{one.model}:{one.variant}" for one in plan.models.values() if one.pretrained != "none"]


def requests_of_all(study: bool) -> list[str]:
    """The default variant of every model that has published weights. study: also of those that only the study used."""
    specs = [registry.spec(name) for name in registry.usable_names()]
    return [f"{spec.name}:{spec.default_variant}" for spec in specs if spec.weights_for(spec.default_variant, study)]


def fetch(wanted: Wanted, folder: WeightsFolder, source: Source) -> WeightsRecord:
    """Fetch one file, check it, and put it into the folder with its record.

    Raises AutosegError if it cannot be had, is not the published file, or does not fit its models. An earlier file then stays;
    a download that broke off is kept, and goes on the next time.
    """
    weights = wanted.weights
    if source.folder is not None:
        return _copy(wanted, folder, source.folder)
    if not source.mirror:
        refuse_offline()
    earlier = folder.record(folder.path / weights.path)
    remote = _locate(weights, earlier, source)
    part = folder.path / f"{weights.path}{_PART}"
    download(remote, part)
    try:
        sha256 = _check(part, wanted, remote, earlier)
    except AutosegError as error:
        discard(part)
        kept = f"; {weights.path} in the folder was kept" if folder.find(weights) else ""
        raise AutosegError(f"{without_secrets(remote.url)}: {error.problem}{kept}", error.remedy) from error
    shown = without_secrets(remote.url)
    record = new_record(weights, sha256, part.stat().st_size, shown, remote.revision)
    folder.keep(part, record)
    logger.info(f"fetched {weights.path} from {urlsplit(shown).hostname}: {record.size:,} bytes, SHA-256 {sha256}")
    return record


def _locate(weights: PublishedWeights, earlier: WeightsRecord | None, source: Source) -> Remote:
    if source.mirror or not weights.repository:
        return Remote(url=source.address(weights), size=weights.size)
    from autoseg.weights.hub import resolve

    # A commit that is not pinned is that of the first fetch.
    remote = resolve(weights, earlier.revision if earlier is not None and not weights.revision else "", source.with_token)
    if weights.size and remote.size not in (0, weights.size):
        raise AutosegError(
            f"{without_secrets(remote.url)} has {remote.size:,} bytes, {weights.size:,} were expected",
            "it is another file by now: get it from elsewhere",
        )
    return remote


def _check(part: Path, wanted: Wanted, remote: Remote, earlier: WeightsRecord | None) -> str:
    """The SHA-256 of a complete download, after all checks."""
    sha256 = check_content(part, wanted.weights)
    announced = remote.sha256 or sha256
    if sha256 != announced:
        raise AutosegError(f"its SHA-256 is {sha256}, the server announced {announced}", "fetch it again")
    if earlier is not None and remote.revision == earlier.revision and sha256 != earlier.sha256:
        raise AutosegError(
            f"its SHA-256 is {sha256}, that of the file fetched on {earlier.added} was {earlier.sha256}",
            "if the publisher has replaced it on purpose, delete the earlier file and its .json, then fetch again",
        )
    for model in wanted.models:
        name, variant = split_request(model)
        check_fit(part, name, variant)
    return sha256


def _copy(wanted: Wanted, folder: WeightsFolder, source: Path) -> WeightsRecord:
    """Take the file from a folder: with the layout of the weights folder, of the hub's cache, or flat."""
    if not source.is_dir():
        raise AutosegError(f"there is no folder {source}", "--from takes a folder of weights files")
    weights = wanted.weights
    file = next((one for one in files_below(source) if matching(one, [weights]) is not None), None)
    if file is None:
        raise AutosegError(f"{source} has no {weights.path}", f"put {weights.file} there")
    check_content(file, weights)
    for model in wanted.models:
        name, variant = split_request(model)
        check_fit(file, name, variant)
    return copy_file(file, weights, folder, f"{source.name}/{file.relative_to(source).as_posix()}")
