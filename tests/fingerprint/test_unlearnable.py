"""Data that cannot teach are named before training: printed with their files, or refused."""

import json
import logging
import re

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset

RNG = np.random.default_rng(0)


def dataset_of(
    tmp_path, count=6, labels=("background", "a", "b"), channel="gray", change=lambda number, image, mask: (image, mask)
):
    dataset = Dataset(tmp_path, "Dataset501_Odd")
    for folder in ("imagesTr", "labelsTr"):
        (dataset.raw / folder).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((96, 96), np.uint8)
        cv2.circle(mask, (30 + 4 * number, 40), 12, 1, -1)
        cv2.circle(mask, (60, 40 + 5 * number), 9, 2, -1)
        image, mask = change(number, (RNG.integers(0, 60, mask.shape) + 60 * mask).astype(np.uint8), mask)
        assert cv2.imwrite(str(dataset.raw / "imagesTr" / f"c{number}_0000.png"), image)
        assert cv2.imwrite(str(dataset.raw / "labelsTr" / f"c{number}.png"), mask)
    names = {name: value for value, name in enumerate(labels)}
    description = {"channel_names": {"0": channel}, "labels": names, "numTraining": count, "file_ending": ".png"}
    dataset.description.write_text(json.dumps(description))
    return tmp_path


def planned(root, caplog):
    with caplog.at_level(logging.INFO):
        plan = api.plan_and_preprocess(501, protocol="quick", models=["unet"], preprocess=False, root=root)
    return plan, caplog.text


ODD = {
    "one class nowhere": (lambda n, image, mask: (image, mask * (mask < 2)), "no mask contains 'b'"),
    "an empty mask": (lambda n, image, mask: (image, mask * (n > 0)), r"1 of 6 masks are empty: c0_0000\.png"),
    "a black image": (lambda n, image, mask: (image * (n != 2), mask), r"1 images are constant, or almost: c2_0000\.png"),
    "an image of one pixel": (
        lambda n, image, mask: (image[:1, :1], mask[:1, :1]) if n == 3 else (image, mask),
        r"1 images have a side of less than 8 pixels: c3_0000\.png",
    ),
    "16 bits among 8": (
        lambda n, image, mask: (image.astype(np.uint16) * 257, mask) if n == 4 else (image, mask),
        r"images are stored as uint16 \(1\), uint8 \(5\).*: c4_0000\.png",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_planning_prints_what_cannot_teach_with_its_files(tmp_path, caplog, kind):
    change, words = ODD[kind]
    _, text = planned(dataset_of(tmp_path, change=change), caplog)
    assert "to check: " in text
    assert re.search(f"to check: .*{words}", text), text


def test_at_most_five_findings_with_five_files_each_are_printed(tmp_path, caplog):
    def change(number, image, mask):
        image, mask = (
            (image * 0, mask * 0) if number < 7 else (image[:5], mask[:5] * 0) if number < 9 else (image, mask * (mask < 2))
        )
        return (image.astype(np.uint16) * 257 if number == 9 else image), mask

    _, text = planned(dataset_of(tmp_path, count=12, change=change), caplog)
    shown = [line for line in text.splitlines() if "to check: " in line]
    assert len(shown) == 5 and "more findings: autoseg_fingerprint Dataset501_Odd" in text
    assert any("and 4 more" in line or "and 2 more" in line for line in shown)


def test_a_set_without_any_foreground_is_refused(tmp_path):
    root = dataset_of(tmp_path, change=lambda n, image, mask: (image, mask * 0))
    for run in (lambda: api.fingerprint(501, root=root), lambda: api.plan_and_preprocess(501, models=["unet"], root=root)):
        with pytest.raises(AutosegError, match="no mask of Dataset501_Odd holds any foreground"):
            run()


@pytest.mark.parametrize("name", ["noNorm", "nonorm"])
def test_the_channel_name_nonorm_keeps_the_values(tmp_path, caplog, name):
    plan, text = planned(dataset_of(tmp_path, channel=name), caplog)
    normalisation = plan.models["unet"].normalisation
    assert (normalisation.scheme, normalisation.mean, normalisation.std) == ("constant", (0.0,), (1.0,))
    assert "channel names" not in text


def test_another_normalisation_in_a_channel_name_is_named(tmp_path, caplog):
    _, text = planned(dataset_of(tmp_path, channel="rescale_to_0_1"), caplog)
    assert "the channel names rescale_to_0_1 ask nnU-Net for a normalisation" in text
