"""Image statistics of the training set, to detect out-of-distribution images: `appearance.json`."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.schema.artefact import Artefact


@dataclass(frozen=True)
class Span:
    """Smallest, middle and largest value of one measure over the training images."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Appearance(Artefact):
    """`appearance.json` of a fold. measures: name -> span; see `autoseg.prediction.ood_detection` for their definitions."""

    NAME = "appearance"
    VERSION = 1

    cases: int
    measures: dict[str, Span]
