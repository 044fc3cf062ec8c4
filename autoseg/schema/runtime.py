"""Settings of an exported folder that predicts without autoseg: `runtime.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from autoseg.schema.artefact import Artefact
from autoseg.schema.dataset import LabelValue
from autoseg.schema.limits import AboveZero, Axis, Count, Factor, FileName, LabelNumber, Share, Side
from autoseg.schema.plan import Normalisation
from autoseg.schema.run import InitialWeights


@dataclass(frozen=True, kw_only=True)
class RuntimeMember:
    """One network: `file` is the ONNX file, `input` (1, C, h, w) and `output` (1, K, h, w) are the names of its tensors.

    geometry, size, scale, spacing, pad, dtype: see `PreprocessingConfig`. mirror: axes of the mirrored views. tta: whether the
    plan averages over them; `--tta` and `--no-tta` overrule it. precision: the plan's; this folder computes in float32.
    """

    model: FileName
    fold: Count
    file: FileName
    sha256: str
    input: str
    output: str
    channels: Side
    input_size: tuple[Side, Side]
    geometry: Literal["resize", "patch"]
    size: tuple[Side, Side] | None
    scale: AboveZero
    spacing: tuple[AboveZero, AboveZero] | None
    pad: bool
    dtype: Literal["uint8", "uint16", "float32"]
    normalisation: Normalisation
    activation: Literal["softmax", "sigmoid"]
    mirror: tuple[Axis, ...]
    tta: bool
    precision: str


@dataclass(frozen=True, kw_only=True)
class RuntimePostProcessing:
    """Of one class, see `PostProcessing`. members: its label values. value: what filled pixels become."""

    name: FileName
    members: tuple[LabelNumber, ...]
    value: LabelNumber
    min_object_fraction: Share
    keep_largest: bool
    fill_holes: bool


@dataclass(frozen=True, kw_only=True)
class RuntimeDescription(Artefact):
    """For `run.py`; autoseg does not read it. names, values: of the output maps, and the label value each one writes.

    regions: maps overlap; each above one half writes its value, later ones over earlier ones. Otherwise the largest map
    counts. tile_step, tile_sigma: of overlapping tiles, as fractions of the tile. colours: label value -> RGB. licence: of the
    data. initial_weights: published files that the networks started from.
    """

    NAME = "runtime"
    VERSION = 1

    producer: str
    dataset: FileName
    members: tuple[RuntimeMember, ...]
    channel_names: tuple[str, ...]
    labels: dict[FileName, LabelValue]
    names: tuple[str, ...]
    values: tuple[LabelNumber, ...]
    regions: bool
    tile_step: Factor
    tile_sigma: AboveZero
    postprocessing: tuple[RuntimePostProcessing, ...]
    colours: dict[str, tuple[LabelNumber, LabelNumber, LabelNumber]]
    licence: str
    initial_weights: tuple[InitialWeights, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        """No networks, or not one value for each map."""
        if not self.members:
            yield "members: expected at least one, found []"
        if len(self.values) != len(self.names):
            yield f"values: expected {len(self.names)} numbers, one for each of names, found {len(self.values)}"
