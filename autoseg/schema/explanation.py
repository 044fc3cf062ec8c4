"""Where a network looked: `explanation.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoseg.schema.artefact import Artefact
from autoseg.schema.frame import Row, Tabular, count, fields


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One heat map of one class of one case. method: gradcam or gradient-free. picture: file name.

    region: "predicted" or "reference", where the target's logits were averaged. inside, ring, outside: shares of the heat
    inside the true region, within a ring around it and elsewhere; not-a-number without a true region. width: of the ring,
    in pixels of the image.
    """

    case: str
    name: str
    method: str
    region: str
    picture: str
    inside: float
    ring: float
    outside: float
    width: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation(Artefact, Tabular):
    """`explanation.json`. identity: of the run. layer: module whose output was read. skipped: case and class -> why."""

    NAME = "explanation"
    VERSION = 1

    dataset: str
    model: str
    fold: int
    identity: str
    layer: str
    heats: tuple[Heat, ...]
    skipped: dict[str, str]

    def summary(self) -> str:
        inside = [heat.inside for heat in self.heats if not math.isnan(heat.inside)]
        mean = f", {sum(inside) / len(inside):.0%} of the heat inside the true region" if inside else ""
        return f"{self.model} fold {self.fold} of {self.dataset}: {count(len(self.heats), 'heat map')}{mean}"

    def to_rows(self) -> list[Row]:
        return [fields(heat) for heat in self.heats]
