"""What the values of masks mean."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.io import Label, read_label
from dataset_conversion.masks import decide_coding, encode, facts_of
from tests.dataset_conversion.pictures import box


def coding(masks, labels=None, kinds=None, lossy=False):
    facts = [
        facts_of(Path(f"m{index}.png"), (kinds or [""] * len(masks))[index], Label(array=mask, spacing=None, lossy=lossy))
        for index, mask in enumerate(masks)
    ]
    return decide_coding(facts, labels)


def test_zero_and_255_become_zero_and_one_and_it_is_said():
    made = coding([box(255), box(0)], ["background", "polyp"])
    assert made.table == {0: 0, 255: 1} and not made.problems
    assert any("255 became 1" in note for note in made.notes)
    ids, disputed = encode([(Label(array=box(255), spacing=None), "")], made)
    assert ids.dtype == np.uint8 and (ids == box(1)).all() and disputed == 0


def test_declared_ids_stay_without_a_word():
    made = coding([box(2), box(1)], ["background", "a", "b"])
    assert made.labels == ("background", "a", "b") and made.notes == [] and made.problems == []
    # A class that no mask of the set holds keeps its place.
    assert coding([box(2)], ["background", "a", "b", "c"]).table == {0: 0, 1: 1, 2: 2, 3: 3}


def test_without_declared_labels_values_are_named():
    made = coding([box(85), box(170)])
    assert made.labels == ("background", "foreground1", "foreground2") and made.table == {0: 0, 85: 1, 170: 2}
    assert any("foreground2 (170, in 1 files)" in note for note in made.notes)


def test_only_the_odd_file_is_accused():
    masks = [box(255) for _ in range(5)] + [box(255) + box(127, at=14)]
    made = coding(masks, ["background", "polyp"])
    assert made.problems == ["m5.png: undeclared values 127 (48 pixels); declared are 0 background, 255 polyp"]


def test_values_that_could_be_either_class_are_refused():
    assert "cannot be told" in coding([box(255)], ["background", "a", "b"]).problems[0]


def test_smoothed_masks_and_empty_ones_are_refused():
    smooth = cv2.GaussianBlur(box(255), (0, 0), 2)
    assert "smoothed" in coding([smooth]).problems[0]
    assert "undeclared" in coding([smooth, box(255)], ["background", "a"]).problems[0]
    assert "marks anything" in coding([box(0)]).problems[0]


def test_labels_must_make_sense():
    assert coding([box(1)], ["polyp"]).labels == ("background", "polyp")
    assert coding([box(1)], ["background", "a", "A"]).problems
    assert coding([box(1)], ["background"]).problems


def test_classes_from_names_are_merged_and_the_later_label_wins():
    made = coding([box(255), box(1, at=6)], ["background", "polyp", "tool"], ["Polyp", "tool"])
    assert not made.problems and any("Polyp (1), tool (1)" in note for note in made.notes)
    ids, disputed = encode(
        [(Label(array=box(1, at=6), spacing=None), "tool"), (Label(array=box(255), spacing=None), "Polyp")], made
    )
    assert (ids[box(1, at=6) > 0] == 2).all() and disputed == 4 * 6
    assert (ids == 1).sum() == 48 - disputed


def test_classes_from_names_must_be_known_and_binary():
    assert "not among" in coding([box(1)], ["background", "polyp"], ["pollip"]).problems[0]
    assert "several values" in coding([box(1) + box(2, at=14)], None, ["polyp"]).problems[0]
    assert "names no class" in coding([box(1), box(1)], None, ["polyp", ""]).problems[0]


def test_masks_of_all_classes_that_contradict_are_counted():
    made = coding([box(1), box(2, at=6)], ["background", "a", "b"])
    assert encode([(Label(array=box(1), spacing=None), ""), (Label(array=box(2, at=6), spacing=None), "")], made)[1] == 24
    assert encode([(Label(array=box(1), spacing=None), ""), (Label(array=box(1, at=6), spacing=None), "")], made)[1] == 0


@pytest.fixture
def jpeg(tmp_path):
    mask = np.zeros((200, 200), np.uint8)
    mask[40:120, 50:150] = 255
    path = tmp_path / "m.jpg"
    cv2.imwrite(str(path), mask, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return path, mask


def test_jpeg_masks_snap_to_their_levels(jpeg):
    path, mask = jpeg
    label = read_label(path)
    assert len(np.unique(label.array)) > 2
    made = decide_coding([facts_of(path, "", label)], ["background", "polyp"])
    assert made.levels == (0, 255) and not made.problems and any("JPEG" in note for note in made.notes)
    assert (encode([(label, "")], made)[0] == mask // 255).all()


def test_jpeg_photographs_are_no_masks(tmp_path):
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8), (90, 90)))
    made = decide_coding([facts_of(path, "", read_label(path))], None)
    assert "JPEG" in made.problems[0] and "photo.jpg" in made.problems[0]
