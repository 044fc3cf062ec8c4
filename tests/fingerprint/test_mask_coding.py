"""What the values of masks mean."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from autoseg.fingerprint.mask_coding import count_mask_values, decide_coding, encode
from autoseg.io import Label, read_label
from tests.dataset_conversion.pictures import box


def coding(masks, labels=None, kinds=None, lossy=False):
    facts = [
        count_mask_values(
            Path(f"m{index}.png"), (kinds or [""] * len(masks))[index], Label(array=mask, spacing=None, lossy=lossy)
        )
        for index, mask in enumerate(masks)
    ]
    return decide_coding(facts, labels)


def test_values_0_and_255_become_0_and_1_with_a_note():
    result = coding([box(255), box(0)], ["background", "polyp"])
    assert result.table == {0: 0, 255: 1} and not result.problems
    assert any("255 became 1" in note for note in result.notes)
    ids, disputed = encode([(Label(array=box(255), spacing=None), "")], result)
    assert ids.dtype == np.uint8 and (ids == box(1)).all() and disputed == 0


def test_declared_ids_stay_without_a_word():
    result = coding([box(2), box(1)], ["background", "a", "b"])
    assert result.labels == ("background", "a", "b") and result.notes == [] and result.problems == []
    # A class that no mask of the set holds keeps its place.
    assert coding([box(2)], ["background", "a", "b", "c"]).table == {0: 0, 1: 1, 2: 2, 3: 3}


def test_without_declared_labels_values_are_named():
    result = coding([box(85), box(170)])
    assert result.labels == ("background", "foreground1", "foreground2") and result.table == {0: 0, 85: 1, 170: 2}
    assert any("foreground2 (170, in 1 files)" in note for note in result.notes)


def test_only_the_odd_file_is_accused():
    masks = [box(255) for _ in range(5)] + [box(255) + box(127, at=14)]
    result = coding(masks, ["background", "polyp"])
    assert result.problems == ["m5.png: undeclared values 127 (48 pixels); declared are 0 background, 255 polyp"]


def test_values_that_could_be_either_class_are_refused():
    assert "ambiguous" in coding([box(255)], ["background", "a", "b"]).problems[0]


def test_smoothed_masks_and_empty_ones_are_refused():
    smooth = cv2.GaussianBlur(box(255), (0, 0), 2)
    assert "smoothed" in coding([smooth]).problems[0]
    assert "undeclared" in coding([smooth, box(255)], ["background", "a"]).problems[0]
    assert "all masks are empty" in coding([box(0)]).problems[0]


def test_labels_must_make_sense():
    assert coding([box(1)], ["polyp"]).labels == ("background", "polyp")
    assert coding([box(1)], ["background", "a", "A"]).problems
    assert coding([box(1)], ["background"]).problems


def test_classes_from_names_are_merged_and_the_later_label_wins():
    result = coding([box(255), box(1, at=6)], ["background", "polyp", "tool"], ["Polyp", "tool"])
    assert not result.problems and any("Polyp (1), tool (1)" in note for note in result.notes)
    ids, disputed = encode(
        [(Label(array=box(1, at=6), spacing=None), "tool"), (Label(array=box(255), spacing=None), "Polyp")], result
    )
    assert (ids[box(1, at=6) > 0] == 2).all() and disputed == 4 * 6
    assert (ids == 1).sum() == 48 - disputed


def test_classes_from_names_must_be_known_and_binary():
    assert "not one of" in coding([box(1)], ["background", "polyp"], ["pollip"]).problems[0]
    assert "several values" in coding([box(1) + box(2, at=14)], None, ["polyp"]).problems[0]
    assert "has no class in its name" in coding([box(1), box(1)], None, ["polyp", ""]).problems[0]


def test_masks_of_all_classes_that_contradict_are_counted():
    result = coding([box(1), box(2, at=6)], ["background", "a", "b"])
    assert encode([(Label(array=box(1), spacing=None), ""), (Label(array=box(2, at=6), spacing=None), "")], result)[1] == 24
    assert encode([(Label(array=box(1), spacing=None), ""), (Label(array=box(1, at=6), spacing=None), "")], result)[1] == 0


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
    result = decide_coding([count_mask_values(path, "", label)], ["background", "polyp"])
    assert result.levels == (0, 255) and not result.problems and any("JPEG" in note for note in result.notes)
    assert (encode([(label, "")], result)[0] == mask // 255).all()


def test_jpeg_photographs_are_no_masks(tmp_path):
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8), (90, 90)))
    result = decide_coding([count_mask_values(path, "", read_label(path))], None)
    assert "JPEG" in result.problems[0] and "photo.jpg" in result.problems[0]
