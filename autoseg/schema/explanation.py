"""Record of a network's saliency maps: `explanation.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoseg.schema.artefact import Artefact, Content, rename
from autoseg.schema.frame import Row, Tabular, count, fields
from autoseg.schema.limits import Count, FileName, ShareResult


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """One heat map of one class of one case. method: gradcam or gradient-free. file: name of the picture.

    region: "predicted" or "reference", over which the target's logits were averaged. inside, ring, outside: fractions of the
    heat inside the true region, in a ring around it and elsewhere; NaN without a true region. ring_width: in pixels.
    """

    case: FileName
    name: FileName
    method: str
    region: str
    file: FileName
    inside: ShareResult
    ring: ShareResult
    outside: ShareResult
    ring_width: Count


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

    dataset: FileName
    model: FileName
    fold: Count
    identity: str
    layer: str
    heatmaps: tuple[HeatMap, ...]
    skipped: dict[str, str]

    def summary(self) -> str:
        inside = [heatmap.inside for heatmap in self.heatmaps if not math.isnan(heatmap.inside)]
        mean = f", {sum(inside) / len(inside):.0%} of the heat inside the true region" if inside else ""
        return f"{self.model} fold {self.fold} of {self.dataset}: {count(len(self.heatmaps), 'heat map')}{mean}"

    def to_rows(self) -> list[Row]:
        return [fields(heatmap) for heatmap in self.heatmaps]
