"""Which published files there are for which model and variant, and which of them a request means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath

from autoseg.models import registry
from autoseg.models.base import ModelSpec
from autoseg.models.published_weights import PublishedWeights
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS

# In front of the folder of one of timm's repositories in the cache of huggingface_hub.
_HUB_CACHE = "models--timm--"


@dataclass(frozen=True)
class Entry:
    """One published file of one model. variants: that it fits."""

    model: str
    variants: tuple[str, ...]
    weights: PublishedWeights


def entries(models: Sequence[str] | None = None) -> list[Entry]:
    """Every file of some models (None: all). Raises AutosegError for an unknown model."""
    return [entry for name in models or registry.usable_names() for entry in _entries_of(registry.spec(name))]


def _entries_of(spec: ModelSpec) -> Iterator[Entry]:
    for weights in spec.weights:
        yield Entry(spec.name, (weights.variant,) if weights.variant else tuple(one.name for one in spec.variants), weights)


def published_at(path: str) -> list[Entry]:
    """The entries of a file by its path in the weights folder, those of timm's encoders too; empty for an unknown file."""
    known = [entry for entry in entries() if entry.weights.path == path]
    return known or [entry for entry in encoder_entries(PurePosixPath(path)) if entry.weights.path == path]


def encoder_entries(file: PurePath) -> list[Entry]:
    """The entries of the timm encoder whose repository's folder a file lies in, here or in the hub's cache. The models
    `timm:NAME` are too many to be in `entries`."""
    cached = (part.removeprefix(_HUB_CACHE) for part in file.parts if part.startswith(_HUB_CACHE))
    names = [*(file.parts[-2:-1] if file.parts[-3:-2] == ("timm",) else ()), *cached]
    try:
        return [entry for name in names for entry in entries([f"timm:{name}"])]
    except AutosegError:
        return []


def split_request(text: str) -> tuple[str, str]:
    """(model, variant) of MODEL or MODEL:VARIANT, "" without a variant. The names of timm's encoders hold a colon."""
    prefix = next((one for one in MODELS.prefixes if text.startswith(one)), "")
    name, _, variant = text.removeprefix(prefix).partition(":")
    return f"{prefix}{name}", variant


def parse_request(text: str) -> tuple[ModelSpec, str]:
    """MODEL or MODEL:VARIANT; without a variant the model's default one. Raises AutosegError for unknown names."""
    name, variant = split_request(text)
    spec = registry.spec(name)
    known = [one.name for one in spec.variants]
    if variant and variant not in known:
        raise AutosegError(f"{name} has no variant {variant!r}", f"choose one of: {', '.join(known)}")
    return spec, variant or spec.default_variant


def candidates(
    spec: ModelSpec, variant: str, *, study: bool = False, commercial: bool = False
) -> dict[str, tuple[PublishedWeights, ...]]:
    """Part -> its files in the order of preference. The part is "" for networks whose files fill them alone.

    study: also those that only the first study used. commercial: only those whose licence is known to allow commercial use.
    """
    parts: dict[str, tuple[PublishedWeights, ...]] = {}
    for weights in spec.weights_for(variant, study):
        allowed = not commercial or weights.commercial is True
        parts[weights.part] = (*parts.get(weights.part, ()), *((weights,) if allowed else ()))
    return parts


def choose(
    spec: ModelSpec, variant: str, is_present: Callable[[PublishedWeights], bool], *, file: str = "", commercial: bool = False
) -> list[PublishedWeights]:
    """The files to get: for each part that has none present, the preferred one that has an address; or `file` by its name.

    Raises AutosegError if there are none for the variant, or none that are allowed.
    """
    # What only the study used stands in for nothing: it is meant only if the model has no other weights.
    study = not spec.weights_for(variant)
    everything = candidates(spec, variant, study=study or bool(file))
    if not everything:
        problem = f"no published weights are known for {spec.name} {variant}"
        raise AutosegError(problem, "autoseg_weights list shows what there is")
    if file:
        return [_named(file, spec, variant, everything)]
    wanted = []
    for part, files in candidates(spec, variant, study=study, commercial=commercial).items():
        if not files:
            licences = ", ".join(sorted({one.licence or "unknown" for one in everything[part]}))
            raise AutosegError(
                f"no weights of {spec.name} {variant} are known to allow commercial use ({licences})",
                "choose another model, or ask the publisher for a licence",
            )
        if not any(is_present(one) for one in files):
            wanted += [one for one in files if one.address][:1]
    return wanted


def _named(file: str, spec: ModelSpec, variant: str, everything: dict[str, tuple[PublishedWeights, ...]]) -> PublishedWeights:
    files = [one for part in everything.values() for one in part]
    matching = [one for one in files if file in (one.path, one.file, one.repository)]
    if len(matching) != 1:
        known = ", ".join(one.path for one in files)
        problem = "means several files" if matching else "is none of the files"
        raise AutosegError(f"{file!r} {problem} of {spec.name} {variant}", f"choose one of: {known}")
    if not matching[0].address:
        problem = f"{matching[0].file} has no address of its own"
        raise AutosegError(problem, "get it from its authors, then autoseg_weights add FILE")
    return matching[0]
