"""Image statistics of the training set, to detect out-of-distribution images: `appearance.json`."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import Count, Result


@dataclass(frozen=True)
class Span:
    """Smallest, middle and largest value of one measure over the training images."""

    low: Result
    median: Result
    high: Result


@dataclass(frozen=True)
class Appearance(Artefact):
    """`appearance.json` of a fold. measures: name -> span; see `autoseg.prediction.ood_detection` for their definitions."""

    NAME = "appearance"
    VERSION = 1

    cases: Count
    measures: dict[str, Span]
