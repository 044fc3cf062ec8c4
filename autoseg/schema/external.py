"""A trained fold tested on another dataset: `external.json` next to its masks."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import Count, FileName


@dataclass(frozen=True, kw_only=True)
class External(Artefact):
    """external: full name of the other dataset. labels: label of the training data -> label of the other dataset, or
    "background". ignored: labels of the other dataset that nothing is mapped to; they count as background. identity: of the
    run whose masks these are."""

    NAME = "external"
    VERSION = 1

    dataset: FileName
    model: FileName
    fold: Count
    external: FileName
    labels: dict[str, str]
    ignored: tuple[str, ...]
    identity: str
