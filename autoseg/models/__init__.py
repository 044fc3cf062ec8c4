"""Networks by name. `base` defines their contract. This package knows nothing about plans or data."""

from autoseg.models.base import (
    ModelOutput,
    ModelSpec,
    SegmentationNetwork,
    StateDictAdapter,
    Variant,
)
from autoseg.models.published import LoadReport, load_published
from autoseg.models.published_weights import PublishedWeights
from autoseg.models.registry import build, names, spec, usable_names

__all__ = [
    "LoadReport",
    "ModelOutput",
    "ModelSpec",
    "PublishedWeights",
    "SegmentationNetwork",
    "StateDictAdapter",
    "Variant",
    "build",
    "load_published",
    "names",
    "spec",
    "usable_names",
]
