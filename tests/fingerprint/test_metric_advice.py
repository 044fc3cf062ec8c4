"""Which metrics to believe: the numbers of the fingerprint, and the Dice that one pixel of a border is worth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from autoseg.fingerprint import table
from autoseg.fingerprint.metric_advice import _worth_of_area, _worth_of_width, advise_metrics
from autoseg.metrics.overlap import counts
from autoseg.schema.fingerprint import ClassInCase, Fingerprint
from tests.planning.fingerprints import FakeDataset


def made(modality: str = "colour", empty: int = 0, **classes: ClassInCase) -> Fingerprint:
    """40 images of 400 x 400, all alike; `empty` of them without foreground."""
    measured = FakeDataset(cases=40, modality=modality, classes=dict.fromkeys(classes, 50.0)).fingerprint
    absent = ClassInCase(pixels=0, objects=0, largest=0, thickness=0.0)
    cases = [
        replace(case, classes={name: absent if number < empty else one for name, one in classes.items()})
        for number, case in enumerate(measured.cases)
    ]
    return replace(measured, cases=tuple(cases))


def objects(count: int, area: int, thickness: float, compactness: float = 0.8) -> ClassInCase:
    return ClassInCase(
        pixels=count * area, objects=count, largest=area, thickness=thickness, object_area=float(area), compactness=compactness
    )


def advised(fingerprint: Fingerprint) -> set[tuple[str, str]]:
    return {(one.of, one.metrics) for one in advise_metrics(fingerprint)}


LESION = objects(1, 12_000, 100.0)


@pytest.mark.parametrize(
    ("fingerprint", "expected"),
    [
        (made(lesion=LESION), set()),
        # A gap of a vessel is no second object.
        (made(vessel=objects(6, 900, 4.0, 0.05)), {("vessel", "clDice and NSD with Dice")}),
        (made(spot=objects(1, 120, 11.0)), {("spot", "object F1 and NSD before Dice")}),
        (made(organ=objects(1, 60_000, 250.0)), {("organ", "Boundary IoU or NSD with Dice")}),
        (made(cell=objects(20, 1500, 40.0)), {("cell", "object F1 and panoptic quality with Dice")}),
        (made(empty=6, lesion=LESION), {("", "object precision and HD95 with the diagonal with Dice")}),
        (made(common=LESION, rare=objects(1, 700, 28.0)), {("", "the class mean with mDSC")}),
        (
            made("ultrasound", lesion=LESION),
            {("", "NSD, with the distance between two readers as its tolerance, before HD95")},
        ),
    ],
)
def test_advice_follows_from_the_fingerprint(fingerprint: Fingerprint, expected: set[tuple[str, str]]) -> None:
    assert advised(fingerprint) == expected
    assert [(one or "all", metrics) for one, metrics in advised(fingerprint)] == [
        (one, metrics) for one, metrics, _ in table.metrics(fingerprint)
    ]


def test_a_class_that_no_mask_has_gets_no_advice() -> None:
    assert advised(made(empty=40, lesion=LESION)) == {("", "object precision and HD95 with the diagonal with Dice")}


@pytest.mark.parametrize("radius", [6, 20, 60])
def test_the_worth_of_a_pixel_along_a_disc(radius: int) -> None:
    rows, columns = np.mgrid[:200, :200]
    disc = (rows - 100) ** 2 + (columns - 100) ** 2 <= radius**2
    larger = (rows - 100) ** 2 + (columns - 100) ** 2 <= (radius + 1) ** 2
    loss = 1 - counts(larger.astype(np.uint8), disc.astype(np.uint8), {"disc": (1,)})["disc"].dice
    assert _worth_of_area(float(disc.sum())) == pytest.approx(loss, rel=0.12)


@pytest.mark.parametrize("width", [2, 5])
def test_the_worth_of_a_pixel_along_a_band(width: int) -> None:
    band = np.zeros((60, 60), np.uint8)
    band[20 : 20 + width] = 1
    wider = cv2.dilate(band, np.ones((3, 1), np.uint8))
    assert _worth_of_width(width) == pytest.approx(1 - counts(wider, band, {"band": (1,)})["band"].dice)
