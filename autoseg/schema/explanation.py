"""Heat maps of what a network used for its prediction: `explanation.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count, fields


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One heat map of one class of one case. method: gradcam or gradient-free. file: name of the picture.

    region: "predicted" or "reference", where the target's logits were averaged. inside, ring, outside: shares of the heat
    inside the true region, within a ring around it and elsewhere; not-a-number without a true region. ring_width:
    in pixels of the image.
    """

    case: str
    name: str
    method: str
    region: str
    file: str
    inside: float
    ring: float
    outside: float
    ring_width: int


def _to_version_2(content: Content) -> Content:
    rename(content, "heats", "heatmaps")
    for heatmap in content["heatmaps"]:
        rename(heatmap, "picture", "file")
        rename(heatmap, "width", "ring_width")
    return content


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation(Artefact, Tabular):
    """`explanation.json`. identity: of the run. layer: module whose output was read. skipped: case and class -> why."""

    NAME = "explanation"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)

    dataset: str
    model: str
    fold: int
    identity: str
    layer: str
    heatmaps: tuple[Heat, ...]
    skipped: dict[str, str]

    def summary(self) -> str:
        inside = [heat.inside for heat in self.heatmaps if not math.isnan(heat.inside)]
        mean = f", {sum(inside) / len(inside):.0%} of the heat inside the true region" if inside else ""
        return f"{self.model} fold {self.fold} of {self.dataset}: {count(len(self.heatmaps), 'heat map')}{mean}"

    def to_rows(self) -> list[Row]:
        return [fields(heat) for heat in self.heatmaps]
