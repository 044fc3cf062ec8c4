"""Pre- and postprocessing of an exported network: `<name>.onnx.json`, and the same text within the ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoseg.schema.artefact import Artefact, Content
from autoseg.schema.limits import AboveZero, Count, Side
from autoseg.schema.plan import Normalisation, geometry_of_version_1


@dataclass(frozen=True)
class OnnxTensor:
    """axes: their names, in order. shape: if it is fixed."""

    name: str
    axes: str
    shape: tuple[Count, ...] = ()


@dataclass(frozen=True)
class OnnxClass:
    """One output map. values: its label values."""

    name: str
    values: tuple[Count, ...]


def _to_version_2(content: Content) -> Content:
    content["geometry"] = geometry_of_version_1(content["geometry"])
    return content


@dataclass(frozen=True, kw_only=True)
class OnnxDescription(Artefact):
    """For other programs; autoseg does not read it. before, after: steps in words.

    geometry, size, scale, spacing: see `PreprocessingConfig`. paint: for regions, the value each one writes, later ones over
    earlier ones.
    """

    NAME = "onnx"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)
    UNMARKED = True

    producer: str
    dataset: str
    model: str
    input: OnnxTensor
    channels: tuple[str, ...]
    before: tuple[str, ...]
    geometry: Literal["resize", "patch"]
    size: tuple[Side, Side] | None
    scale: AboveZero
    spacing: tuple[AboveZero, AboveZero] | None
    normalisation: Normalisation
    output: OnnxTensor
    after: tuple[str, ...]
    classes: tuple[OnnxClass, ...]
    paint: tuple[Count, ...]
