"""What the rules look at, taken once from fingerprint and dataset description."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import ClassStatistics, Fingerprint


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """outputs: logit maps. classes: foreground only. size: median (height, width) in pixels; aspect: physical height over
    width. training_cases: cases of one fold's training side. spacings: whether every case says how large its pixels are.
    """

    fingerprint: Fingerprint
    outputs: int
    regions: bool
    label_names: tuple[str, ...]
    classes: tuple[ClassStatistics, ...]
    cases: int
    training_cases: int
    size: tuple[int, int]
    aspect: float
    spacings: bool

    @property
    def side(self) -> float:
        """Side of a square with as many pixels as the median image."""
        return math.sqrt(self.size[0] * self.size[1])

    @property
    def thinnest(self) -> ClassStatistics | None:
        """The class of the smallest median thickness; None where no case holds any foreground."""
        held = [found for found in self.classes if found.cases > 0 and found.thickness > 0]
        return min(held, key=lambda found: found.thickness) if held else None

    @property
    def foreground_share(self) -> float:
        """Share of all pixels that are foreground."""
        return sum(found.pixel_share for found in self.classes)

    @property
    def where_thinnest(self) -> str:
        """The fingerprint's fields that say how thin the thinnest class is."""
        thinnest = self.thinnest
        return self.cite("median_size", *([] if thinnest is None else [("classes", thinnest.name, "thickness")]))

    def cite(self, *paths: str | tuple[str, ...]) -> str:
        """Fields of the fingerprint with their values: cite("modality", ("classes", "vessel", "thickness")).

        Of a list, an item is chosen by its name; a whole list is cited by its length.
        """
        return "; ".join(self._cited((path,) if isinstance(path, str) else path) for path in paths)

    def _cited(self, path: tuple[str, ...]) -> str:
        value: Any = self.fingerprint
        for key in path:
            value = next(item for item in value if item.name == key) if isinstance(value, tuple) else getattr(value, key)
        if isinstance(value, tuple) and path[-1] in ("cases", "channels", "classes"):
            return f"{len(value)} {path[-1]}"
        return f"{'.'.join(path)} {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def dataset_stats(fingerprint: Fingerprint, spec: DatasetSpec, folds: int) -> DatasetStats:
    """The facts of a dataset that will be split into `folds` folds."""
    scheme = spec.label_scheme()
    cases = len(fingerprint.cases)
    # With fewer cases than folds the splits make as many folds as there are cases.
    left_out = math.ceil(cases / max(2, min(folds, cases)))
    spacing = fingerprint.median_spacing
    height, width = fingerprint.median_size
    return DatasetStats(
        fingerprint=fingerprint,
        outputs=scheme.outputs,
        regions=scheme.regions,
        label_names=tuple(scheme.foreground),
        classes=tuple(found for found in fingerprint.classes if found.name in scheme.foreground),
        cases=cases,
        training_cases=max(1, cases - left_out),
        size=(height, width),
        aspect=height * (spacing[0] / spacing[1] if spacing else 1.0) / width,
        spacings=all(case.spacing is not None for case in fingerprint.cases),
    )
