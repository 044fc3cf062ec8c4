"""Dataset statistics for the planning rules, from the fingerprint and dataset.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean
from typing import Any

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import ClassStatistics, Fingerprint
from autoseg.schema.plan import Splits


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """outputs: logit maps. classes: foreground only. size: median (height, width) in pixels; aspect: physical height over
    width. training_cases, validation_cases: of one fold. spacings: whether every case has a spacing.
    """

    fingerprint: Fingerprint
    outputs: int
    regions: bool
    label_names: tuple[str, ...]
    classes: tuple[ClassStatistics, ...]
    cases: int
    training_cases: int
    validation_cases: int
    size: tuple[int, int]
    aspect: float
    spacings: bool

    @property
    def side(self) -> float:
        """Side of a square with as many pixels as the median image."""
        return math.sqrt(self.size[0] * self.size[1])

    @property
    def thinnest(self) -> ClassStatistics | None:
        """The class with the smallest median thickness; None without foreground."""
        present = [
            class_statistics
            for class_statistics in self.classes
            if class_statistics.cases > 0 and class_statistics.thickness > 0
        ]
        return min(present, key=lambda class_statistics: class_statistics.thickness) if present else None

    @property
    def foreground_share(self) -> float:
        """Fraction of all pixels that is foreground."""
        return sum(class_statistics.pixel_share for class_statistics in self.classes)

    @property
    def where_thinnest(self) -> str:
        """Citation of the fields that give the thickness of the thinnest class."""
        thinnest = self.thinnest
        return self.cite("median_size", *([] if thinnest is None else [("classes", thinnest.name, "thickness")]))

    def cite(self, *paths: str | tuple[str, ...]) -> str:
        """Fields of the fingerprint with their values: cite("modality", ("classes", "vessel", "thickness")).

        An item of a list is selected by its name; for a complete list, its length is cited.
        """
        return "; ".join(self._cite_one((path,) if isinstance(path, str) else path) for path in paths)

    def _cite_one(self, path: tuple[str, ...]) -> str:
        value: Any = self.fingerprint
        for key in path:
            value = next(item for item in value if item.name == key) if isinstance(value, tuple) else getattr(value, key)
        if isinstance(value, tuple) and path[-1] in ("cases", "channels", "classes"):
            return f"{len(value)} {path[-1]}"
        return f"{'.'.join(path)} {_format(value)}"


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(_format(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def dataset_stats(
    fingerprint: Fingerprint, spec: DatasetSpec, folds: int, splits: Splits | None = None, left_out: int = 0
) -> DatasetStats:
    """Statistics of a dataset that will be split into `folds` folds, or as the user's `splits`. left_out: cases in no fold."""
    scheme = spec.label_scheme()
    cases = len(fingerprint.cases) - left_out
    # With fewer cases than folds, there is one fold for each case.
    validation_cases = math.ceil(cases / max(2, min(folds, cases)))
    training_cases = cases - validation_cases
    if splits is not None:
        # Folds of a user may differ in size, and leave cases out.
        training_cases = round(mean(len(fold.train) for fold in splits.folds))
        validation_cases = round(mean(len(fold.validation) for fold in splits.folds))
    spacing = fingerprint.median_spacing
    height, width = fingerprint.median_size
    return DatasetStats(
        fingerprint=fingerprint,
        outputs=scheme.outputs,
        regions=scheme.regions,
        label_names=tuple(scheme.foreground),
        classes=tuple(
            class_statistics for class_statistics in fingerprint.classes if class_statistics.name in scheme.foreground
        ),
        cases=cases,
        training_cases=max(1, training_cases),
        validation_cases=validation_cases,
        size=(height, width),
        aspect=height * (spacing[0] / spacing[1] if spacing else 1.0) / width,
        spacings=all(case.spacing is not None for case in fingerprint.cases),
    )
