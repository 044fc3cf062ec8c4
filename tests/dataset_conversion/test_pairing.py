"""Which mask belongs to which image, by their names."""

from pathlib import Path

import pytest

from autoseg.support.errors import AutosegError
from dataset_conversion.pairing import pair_files


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def paired(tmp_path, images, masks, labels=None):
    """stem -> {mask file name: kind}; problems are listed under ""."""
    result = pair_files(touch(tmp_path / "i", *images), touch(tmp_path / "m", *masks), labels)
    pairs = {
        pair.stem: {str(mask.path.relative_to(tmp_path / "m")): mask.kind for mask in pair.masks}
        for pair in result.pairs
        if pair.masks
    }
    return pairs, result.problems


@pytest.mark.parametrize(
    "mask",
    [
        "a.png",
        "A.PNG",
        "a_mask.png",
        "a_segmentation.png",
        "a-gt.png",
        "a_label.png",
        "a mask.png",
        "mask_a.png",
        "a_mask_1.png",
    ],
)
def test_names_of_a_mask(tmp_path, mask):
    assert paired(tmp_path, ["a.jpg"], [mask]) == ({"a": {mask: ""}}, [])


def test_several_masks_of_one_image(tmp_path):
    masks = ["benign (1)_mask.png", "benign (1)_mask_1.png", "benign (10)_mask.png"]
    pairs, problems = paired(tmp_path, ["benign (1).png", "benign (10).png"], masks)
    assert pairs == {"benign (1)": dict.fromkeys(masks[:2], ""), "benign (10)": {masks[2]: ""}} and not problems


def test_classes_in_names(tmp_path):
    pairs, problems = paired(tmp_path, ["a.png"], ["a_polyp.png", "a_instrument_mask.png", "a_Left_Ventricle.png"])
    assert set(pairs["a"].values()) == {"polyp", "instrument", "Left_Ventricle"} and not problems
    pairs, _ = paired(tmp_path / "b", ["a.png"], ["a_left_ventricle_1.png"], ["background", "Left Ventricle"])
    assert set(pairs["a"].values()) == {"Left Ventricle"}


def test_classes_in_folders_and_folders_that_mirror(tmp_path):
    pairs, problems = paired(tmp_path, ["a.png", "b.png"], ["polyp/a.png", "tool/a.png", "tool/b_mask.png"])
    assert pairs == {"a": {"polyp/a.png": "polyp", "tool/a.png": "tool"}, "b": {"tool/b_mask.png": "tool"}} and not problems
    pairs, problems = paired(tmp_path / "n", ["p1/a.png", "p2/a.png"], ["p1/a_gt.png", "p2/a_gt.png"])
    assert pairs == {"p1/a": {"p1/a_gt.png": ""}, "p2/a": {"p2/a_gt.png": ""}} and not problems


def test_the_longest_name_wins_and_numbers_are_not_classes(tmp_path):
    pairs, problems = paired(tmp_path, ["a.png", "a_1.png"], ["a.png", "a_1.png"])
    assert pairs == {"a": {"a.png": ""}, "a_1": {"a_1.png": ""}} and not problems
    _, problems = paired(tmp_path / "n", ["a.png"], ["a.png", "a_1.png"])
    assert len(problems) == 1 and "a_1.png: a mask without an image" in problems[0]


def test_missing_and_spare_files_are_listed_together(tmp_path):
    pairs, problems = paired(tmp_path, ["a.png", "b.png", "c.png"], ["a.png", "x.png", "y.png"])
    assert list(pairs) == ["a"]
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in problems] == ["x.png", "y.png", "b.png", "c.png"]


def test_two_images_of_one_name(tmp_path):
    _, problems = paired(tmp_path, ["a.jpg", "a.png"], ["a.png"])
    assert len(problems) == 1 and "ambiguous" in problems[0]


def test_one_folder_for_both(tmp_path):
    both = touch(tmp_path / "x", "a.png", "a_mask.png", "b_1.png", "b_1_mask.png")
    result = pair_files(both, both)
    assert [(pair.stem, pair.masks[0].path.name) for pair in result.pairs] == [("a", "a_mask.png"), ("b_1", "b_1_mask.png")]
    with pytest.raises(AutosegError, match="one folder"):
        pair_files(touch(tmp_path / "y", "a.png"), tmp_path / "y")


def test_channel_files_and_frames(tmp_path):
    result = pair_files(touch(tmp_path / "i", "a_0000.png", "a_0001.png"), touch(tmp_path / "m", "a.png"))
    assert [path.name for path in result.pairs[0].images] == ["a_0000.png", "a_0001.png"]
    frames = pair_files(touch(tmp_path / "f", "a_0000.png", "a_0001.png"), touch(tmp_path / "g", "a_0000.png", "a_0001.png"))
    assert [pair.stem for pair in frames.pairs] == ["a_0000", "a_0001"]


def test_no_matching_mask_is_an_error(tmp_path):
    with pytest.raises(AutosegError, match=r"matches.*x\.png and a\.png"):
        paired(tmp_path, ["a.png"], ["x.png"])
    with pytest.raises(AutosegError, match=r"no images.*\.txt"):
        paired(tmp_path / "n", ["a.txt"], ["a.png"])
    with pytest.raises(AutosegError, match="does not exist"):
        pair_files(tmp_path / "nowhere", tmp_path / "m")


def test_other_files_are_skipped_with_a_note(tmp_path):
    result = pair_files(touch(tmp_path / "i", "a.png", "Thumbs.db", ".DS_Store"), touch(tmp_path / "m", "a.png"))
    assert len(result.pairs) == 1 and len(result.notes) == 1 and ".db" in result.notes[0]
