"""Converters never drop what they cannot place: it is a problem with its number, or it is placed, or it is noted."""

import json

import numpy as np
import pytest

from autoseg.io import read_label
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Workspace
from dataset_conversion.reading import decode_run_lengths
from dataset_conversion.run import convert
from tests.dataset_conversion import layouts
from tests.dataset_conversion.official import SIZE


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "root")


@pytest.fixture
def coco(tmp_path):
    pytest.importorskip("pycocotools")
    layouts.coco(tmp_path / "source")
    return tmp_path / "source" / "train" / "_annotations.coco.json"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def boxes(content):
    for item in content["annotations"][:2]:
        item.update(segmentation=[], bbox=[1, 1, 4, 4])


COCO_FAULTS = {
    "objects with a box only": (boxes, r"2 annotations have no outline, only a box: image ids 0, 0"),
    "no segmentation at all": (lambda c: c["annotations"][2].pop("segmentation"), "1 annotations have no outline"),
    "a category that is not declared": (
        lambda c: c["annotations"][0].update(category_id=8),
        r"1 annotations are of categories 8 \(1\); declared are 7 polyp, 9 tool",
    ),
    "categories counted from 0": (lambda c: c["annotations"][0].update(category_id=0), r"categories 0 \(1\)"),
    "an image that is not listed": (
        lambda c: c["annotations"][0].update(image_id=99),
        "1 annotations belong to images that are not listed: ids 99",
    ),
    "an id as text": (lambda c: c["annotations"][0].update(image_id="0"), "not listed: ids 0"),
    "two images of one id": (lambda c: c["images"][1].update(id=0), "several images have the ids 0"),
    "a category that is no number": (lambda c: c["annotations"][0].update(category_id="polyp"), "category_id of annotations"),
    "another name for a category": (
        lambda c: c["categories"][0].update(name="scissors"),
        "'tool'.*'scissors'|'scissors'.*",
    ),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_annotations_that_cannot_be_drawn_are_problems_with_their_number(coco, workspace, fault):
    change, words = COCO_FAULTS[fault]
    edit(coco, change)
    with pytest.raises(AutosegError, match=words):
        convert("coco", coco.parent.parent, workspace, "Set")
    assert not workspace.datasets()


def test_two_categories_of_one_name_are_one_class_and_unused_ones_are_noted(coco, workspace):
    for table in coco.parent.parent.rglob("*.json"):
        edit(table, lambda content: content["categories"].append({"id": 11, "name": "clip"}))
        edit(table, lambda content: content["categories"].append({"id": 8, "name": "polyp"}))
    edit(coco, lambda content: content["annotations"][0].update(category_id=8))
    report = convert("coco", coco.parent.parent, workspace, "Set")
    assert list(report.spec.labels) == ["background", "polyp", "tool", "clip"]
    assert "categories without any object: clip" in report.notes
    label = read_label(report.dataset.raw / "labelsTr" / "a.png").array
    assert set(np.unique(label)) == {0, 1, 2}


def test_a_dataset_without_any_foreground_is_not_written(tmp_path, coco, workspace):
    for table in coco.parent.parent.rglob("*.json"):
        edit(table, lambda content: content["annotations"].clear())
    with pytest.raises(SeveralProblems, match="no mask of a training case holds any foreground"):
        convert("coco", coco.parent.parent, workspace, "Set")
    layouts.rle_csv(tmp_path / "rle")
    table = tmp_path / "rle" / "train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line.partition(",")[0] + "," for line in lines[1:])]))
    with pytest.raises(SeveralProblems, match="no mask of a training case holds any foreground"):
        convert("rle_csv", tmp_path / "rle", workspace, "Set", options={"labels": "polyp,tool"})


def relative_runs(mask):
    """As a competition published them: a start is the number of pixels since the end of the run before, down the columns."""
    flat = np.concatenate([[0], mask.T.ravel(), [0]])
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    gaps = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(f"{gap} {length}" for gap, length in zip(gaps, ends - starts, strict=True))


def test_relative_run_lengths_are_told_from_absolute_ones(tmp_path, workspace):
    mask = np.zeros(SIZE, np.int8)
    mask[10:20, 5:12], mask[30:33, 20:22] = 1, 1
    runs = relative_runs(mask)
    assert np.array_equal(decode_run_lengths(runs, SIZE, relative=True), mask)
    with pytest.raises(AutosegError, match=r"go backwards(.|\n)*--relative"):
        decode_run_lengths(runs, SIZE)
    with pytest.raises(AutosegError, match="go backwards"):
        decode_run_lengths("5 10 8 2", SIZE)
    assert decode_run_lengths("5 10 15 2", SIZE).sum() == 12
    layouts.rle_csv(tmp_path / "rle")
    (tmp_path / "rle" / "train.csv").write_text(f"ImageId,EncodedPixels\na.jpg,{runs}\nb.jpg,\n")
    with pytest.raises(SeveralProblems, match=r"a\.jpg: the run lengths go backwards.*--relative"):
        convert("rle_csv", tmp_path / "rle", workspace, "Set")
    report = convert("rle_csv", tmp_path / "rle", workspace, "Set", options={"relative": True})
    assert np.array_equal(read_label(report.dataset.raw / "labelsTr" / "a.png").array, mask)
