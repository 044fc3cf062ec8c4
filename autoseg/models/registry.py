"""Architectures by name. Their table is `MODELS` in `autoseg.support.extensions`; a new one is a file and a row there.

Other packages add theirs with entry points in the group "autoseg.models", whose values are modules as well. What a module has
to hold stands in `autoseg.models.base`; `autoseg_check_model NAME` checks it.
"""

from __future__ import annotations

from typing import Any

from autoseg.models.base import ModelSpec, SegmentationNetwork
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import MODELS


def names() -> tuple[str, ...]:
    """All registered names, in the table's order, then those of other packages. Nothing is imported."""
    return MODELS.names()


def usable_names() -> tuple[str, ...]:
    """The same without those of other packages that cannot be imported, each with a warning."""
    return tuple(name for name, _ in MODELS.usable())


def spec(name: str) -> ModelSpec:
    """The traits of a model. Raises AutosegError, with the nearest names, where there is no such model."""
    return MODELS.get(name).SPEC  # type: ignore[no-any-return]


def find_spec(name: str) -> ModelSpec | None:
    """The same, None where there is no such model or its package cannot be used: results outlive the packages they need."""
    try:
        return spec(name)
    except AutosegError:
        return None


def build(
    name: str,
    variant: str | None = None,
    in_channels: int = 3,
    num_classes: int = 2,
    input_size: tuple[int, int] | None = None,
    **options: Any,
) -> SegmentationNetwork:
    """The network, with fresh weights.

    variant: one of the spec's, by default the benchmark protocol's. num_classes counts the background (the logits'
    channels). input_size: (H, W) the planner means to train at, for networks whose depth follows it; any other size
    still works. options: what the model's own file documents. Raises AutosegError for an unknown name or variant.
    """
    module = MODELS.get(name)
    known: ModelSpec = module.SPEC
    chosen = variant or known.default_variant
    if chosen not in {v.name for v in known.variants}:
        offered = ", ".join(v.name for v in known.variants)
        raise AutosegError(f"{name} has no variant {chosen!r}", f"choose one of: {offered}")
    network: SegmentationNetwork = module.build(
        variant=chosen, in_channels=in_channels, num_classes=num_classes, input_size=input_size, **options
    )
    return network
