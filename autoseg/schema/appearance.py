"""What the images of a training looked like, so that a new one can be held against them: `appearance.json`."""

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
    """`appearance.json` of a fold. measures: name -> span; see `autoseg.prediction.ood_detection` for what each one is."""

    NAME = "appearance"
    VERSION = 1

    cases: int
    measures: dict[str, Span]
