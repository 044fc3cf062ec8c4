"""Which metrics to believe for a dataset, and why: after Metrics Reloaded (Maier-Hein et al., Nature Methods 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from autoseg.metrics.skeleton import MAX_THIN_WIDTH
from autoseg.schema.fingerprint import ClassInCase, Fingerprint

# What one pixel along the whole border is worth in Dice: from here on it hides what a reader sees.
_FRAGILE = 0.1
_SEVERAL_OBJECTS = 3
_LARGE, _COMPACT = 0.1, 0.5
_OFTEN_EMPTY = 0.1
_UNEQUAL = 10
# Images in which even experts draw a border several pixels apart.
_UNCERTAIN_BORDERS = {"ultrasound": "in ultrasound readers draw one border many pixels apart"}


@dataclass(frozen=True)
class MetricAdvice:
    """metrics: their usual names. reason: a clause with the measured numbers. of: a class, "" for all."""

    metrics: str
    reason: str
    of: str = ""

    def __str__(self) -> str:
        """The advice without the class."""
        return f"{self.metrics}, because {self.reason}"


def advise_metrics(fingerprint: Fingerprint) -> tuple[MetricAdvice, ...]:
    """Advice for a task, most specific first. Dice alone is enough if there is none."""
    side = min(fingerprint.median_size)
    area = fingerprint.median_size[0] * fingerprint.median_size[1]
    found: list[MetricAdvice] = []
    for one in fingerprint.classes:
        inside = [case.classes[one.name] for case in fingerprint.cases if case.classes[one.name].pixels]
        if inside:
            found += _of_class(one.name, inside, side, area)
    return (*found, *_of_set(fingerprint))


def _of_class(name: str, inside: list[ClassInCase], side: int, area: int) -> Iterator[MetricAdvice]:
    width, objects = median(one.thickness for one in inside), median(one.objects for one in inside)
    size = median(one.object_area for one in inside)
    if 0 < width <= MAX_THIN_WIDTH * side:
        yield MetricAdvice(
            "clDice and NSD with Dice",
            f"it is {width:.0f} pixels wide: one pixel along its border is worth {_worth_of_width(width):.2f} Dice, "
            "a gap next to nothing",
            name,
        )
    elif size and _worth_of_area(size) >= _FRAGILE:
        yield MetricAdvice(
            "object F1 and NSD before Dice",
            f"its objects have {size:.0f} pixels: one pixel along the border is worth {_worth_of_area(size):.2f} Dice",
            name,
        )
    elif size >= _LARGE * area and median(one.compactness for one in inside) >= _COMPACT:
        yield MetricAdvice(
            "Boundary IoU or NSD with Dice",
            f"it fills {100 * size / area:.0f} % of an image: one pixel along the border is worth {_worth_of_area(size):.3f} "
            "Dice, which hides a wrong border",
            name,
        )
    # A gap in a vessel makes two objects of it: their number tells nothing.
    if objects >= _SEVERAL_OBJECTS and width > MAX_THIN_WIDTH * side:
        yield MetricAdvice(
            "object F1 and panoptic quality with Dice",
            f"an image has {objects:.0f} objects: Dice counts pixels, and a small object that is missed costs it nothing",
            name,
        )


def _of_set(fingerprint: Fingerprint) -> Iterator[MetricAdvice]:
    cases, classes = fingerprint.cases, [one.name for one in fingerprint.classes]
    empty = sum(not any(one.pixels for one in case.classes.values()) for case in cases)
    if empty >= _OFTEN_EMPTY * len(cases):
        yield MetricAdvice(
            "object precision and HD95 with the diagonal with Dice",
            f"{empty} of {len(cases)} masks are empty: Dice of images leaves out an empty prediction for them, which is right",
        )
    totals = [sum(case.classes[name].pixels for case in cases) for name in classes]
    totals = [total for total in totals if total]
    if len(totals) > 1 and max(totals) >= _UNEQUAL * min(totals):
        yield MetricAdvice(
            "the class mean with mDSC",
            f"the largest class has {max(totals) / min(totals):.0f} times the pixels of the smallest, and mDSC counts pixels",
        )
    reason = _UNCERTAIN_BORDERS.get(fingerprint.modality)
    if reason is not None:
        yield MetricAdvice("NSD, with the distance between two readers as its tolerance, before HD95", reason)


def _worth_of_width(width: float) -> float:
    """Dice that a band of this width loses if it is drawn one pixel too wide on both sides."""
    return 1 / (width + 1)


def _worth_of_area(area: float) -> float:
    """Dice that a disc of this area loses if it is drawn one pixel too large: a border of 2 sqrt(pi area) pixels too many."""
    border = 2 * math.sqrt(math.pi * area)
    return border / (2 * area + border)
