"""What kind of images these are, and why."""

from dataclasses import replace

import pytest

from autoseg.fingerprint.modality import detect_modality
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint, ClassInCase

RGB = {"0": "R", "1": "G", "2": "B"}
GRAY = {"0": "gray"}


def case(low=0.0, high=255.0):
    return CaseFingerprint(
        case="a",
        size=(4, 4),
        channels=1,
        dtype="uint8",
        spacing=None,
        file_hash="",
        pixel_hash="",
        low=low,
        high=high,
        border=0.0,
        classes={},
    )


def cells(number, compactness=0.8):
    held = {
        "thing": ClassInCase(pixels=900, objects=number, largest=100, thickness=9.0, object_area=90.0, compactness=compactness)
    }
    return CaseFingerprint(
        case="a",
        size=(4, 4),
        channels=1,
        dtype="uint8",
        spacing=None,
        file_hash="",
        pixel_hash="",
        low=0.0,
        high=255.0,
        border=0.0,
        classes=held,
    )


def kind(channels, dtype="uint8", cases=(), gray=False, name="Set", means=(), **spec_fields):
    spec = DatasetSpec(
        channel_names=channels,
        labels=spec_fields.pop("labels", {"background": 0, "thing": 1}),
        numTraining=1,
        file_ending=".png",
        **spec_fields,
    )
    return detect_modality(spec, name, cases or [case()], gray, dtype, means)


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("colour", {"channels": RGB}),
        ("gray", {"channels": GRAY}),
        ("gray", {"channels": RGB, "gray": True}),
        ("ultrasound", {"channels": RGB, "gray": True, "modality": "Ultrasound"}),
        ("ultrasound", {"channels": GRAY, "name": "BUSI"}),
        ("ultrasound", {"channels": GRAY, "name": "CAMUS_2CH"}),
        ("ct", {"channels": {"0": "CT"}, "dtype": "float32"}),
        ("mr", {"channels": {"0": "T1", "1": "FLAIR"}, "dtype": "uint16"}),
        ("mr", {"channels": {"0": "cine-MRI"}}),
        ("xray", {"channels": GRAY, "description": "Chest X-Ray images"}),
        ("microscopy", {"channels": RGB, "name": "NucleiHistology"}),
        ("microscopy", {"channels": RGB, "labels": {"background": 0, "gland": 1}}),
        ("multichannel", {"channels": {"0": "a", "1": "b"}}),
        ("multichannel", {"channels": {"0": "a", "1": "b", "2": "c"}, "dtype": "uint16"}),
        ("ct", {"channels": GRAY, "dtype": "float32", "cases": [case(-1000, 2000)]}),
        ("mr", {"channels": GRAY, "dtype": "uint16", "cases": [case(0, 300), case(0, 900), case(0, 2000)]}),
        ("gray", {"channels": GRAY, "dtype": "uint16", "cases": [case(0, 4095), case(0, 4095)]}),
        ("ultrasound", {"channels": GRAY, "cases": [replace(case(), layering=2.2)]}),
        ("microscopy", {"channels": GRAY, "cases": [cells(30)]}),
        ("gray", {"channels": GRAY, "cases": [cells(30, 0.1)]}),
        ("microscopy", {"channels": RGB, "cases": [cells(30)], "means": (170.0, 140.0, 200.0)}),
        ("colour", {"channels": RGB, "cases": [cells(1)], "means": (170.0, 140.0, 200.0)}),
        ("colour", {"channels": RGB, "cases": [cells(30)], "means": (170.0, 140.0, 100.0)}),
        ("xray", {"channels": GRAY, "cases": [replace(case(), size=(1200, 1000), background=0.1)]}),
        ("gray", {"channels": GRAY, "cases": [replace(case(), size=(1200, 1000), background=0.6)]}),
    ],
)
def test_detect_modality(expected, arguments):
    result, evidence = kind(**arguments)
    assert result == expected and evidence


def test_only_complete_words_count():
    assert kind(GRAY, name="Muscle")[0] == "gray"  # holds "us"
    assert kind(GRAY, name="Direct")[0] == "gray"  # holds "ct"


def test_gray_modality_is_ignored_for_colour_images():
    assert kind(RGB, description="not taken by CT or MRI")[0] == "colour"
