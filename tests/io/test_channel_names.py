"""Numbers in names: channels of a case, or frames that keep their numbers; masks are named as their images."""

import json
import os

import cv2
import numpy as np
import pytest

from autoseg.io import RawDataset, list_cases, read_image, split_channels
from autoseg.prediction.inputs import find_jobs
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.pairing import pair_files
from dataset_conversion.run import convert
from dataset_conversion.source import Source

PICTURE = np.random.default_rng(0).integers(0, 200, (20, 24), dtype=np.uint8)
FRAMES = [f"vid_{number:04d}" for number in range(4)]


def folder_of(path, stems, pixels=PICTURE):
    path.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        assert cv2.imwrite(str(path / f"{stem}.png"), pixels)
    return path


@pytest.mark.parametrize(
    ("stems", "channels", "cases"),
    [
        (FRAMES, 1, FRAMES),
        (FRAMES, 2, FRAMES),
        (FRAMES, 4, ["vid"]),
        (["a_0000", "b_0000"], 1, ["a", "b"]),
        (["a_0000", "a_0001", "b_0000", "b_0001"], 2, ["a", "b"]),
        (["a_0000_0000", "a_0001_0000"], 1, ["a_0000", "a_0001"]),
        (["scan_2024", "other"], 1, ["other", "scan_2024"]),
        ([*FRAMES, "x_0000"], 1, [*FRAMES, "x"]),
        (["vid_0003", "vid_0007"], 1, ["vid_0003", "vid_0007"]),
    ],
)
def test_a_number_beyond_the_channels_belongs_to_the_names_of_all_its_siblings(tmp_path, stems, channels, cases):
    folder = folder_of(tmp_path / "images", stems)
    assert [case.name for case in list_cases(folder, None, ".png", channels)] == sorted(cases)
    jobs = find_jobs(folder, channels, output=tmp_path / "out")
    assert [job.name for job in jobs] == sorted(cases)
    assert [job.output for job in jobs] == [f"{name}.png" for name in sorted(cases)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_masks_decide_what_the_names_of_a_raw_dataset_are(tmp_path, count):
    dataset = Dataset(tmp_path, "Dataset501_Frames")
    folder_of(dataset.raw / "imagesTr", FRAMES[:count])
    folder_of(dataset.raw / "labelsTr", FRAMES[:count], (PICTURE > 100).astype(np.uint8))
    labels = {"background": 0, "thing": 1}
    description = {"channel_names": {"0": "gray"}, "labels": labels, "numTraining": count, "file_ending": ".png"}
    dataset.description.write_text(json.dumps(description))
    cases = RawDataset.open(dataset).cases
    assert [case.name for case in cases] == FRAMES[:count] and all(case.label for case in cases)
    report = convert("nnunet", dataset.raw, Workspace.at(tmp_path / "root"), "Copy")
    assert sorted(path.stem for path in (report.dataset.raw / "labelsTr").iterdir()) == FRAMES[:count]


def test_a_channel_too_many_beside_a_mask_is_a_fault(tmp_path):
    images, labels = folder_of(tmp_path / "i", ["a_0000", "a_0002"]), folder_of(tmp_path / "l", ["a"])
    with pytest.raises(SeveralProblems, match=r"a: channel files \[0, 2\]"):
        list_cases(images, labels, ".png", 2)
    assert split_channels(["a_0000", "a_0002"], 2) == {}


def test_links_that_lead_nowhere_are_named(tmp_path):
    folder = folder_of(tmp_path / "images", ["a_0000"])
    os.symlink(tmp_path / "gone.png", folder / "b_0000.png")
    with pytest.raises(AutosegError, match=r"b_0000\.png is a link to a file that does not exist"):
        read_image(folder / "b_0000.png")
    with pytest.raises(SeveralProblems, match=r"b_0000\.png is a link"):
        list_cases(folder, None, ".png", 1)
    jobs = find_jobs(folder, 1, output=tmp_path / "out")
    assert [job.name for job in jobs] == ["a", "b"]
    folder_of(tmp_path / "masks", ["a_0000"])
    assert any("b_0000.png: a link" in problem for problem in pair_files(folder, tmp_path / "masks").problems)
    with pytest.raises(AutosegError, match=r"b_0000\.png is a link to a file that does not exist"), Source(folder):
        pass
