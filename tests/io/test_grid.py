"""Masks lie where their own geometry says: mirrored and cut-out ones come onto the image's grid, others are faults."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.evaluation.evaluate import evaluate_folders
from autoseg.fingerprint.validation import load_case
from autoseg.io import Case, read_case, read_image, read_label, read_label_of
from autoseg.support.errors import AutosegError

SPACING, ORIGIN = (0.5, 0.8, 3.0), (7.0, -3.0, 11.0)
ANGLE = np.radians(20)
OBLIQUE = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
MASK = np.zeros((40, 60), np.uint8)
MASK[5:15, 10:30], MASK[20:24, 40:55] = 1, 2


def image_of(values, direction=OBLIQUE, origin=ORIGIN, spacing=SPACING):
    image = sitk.GetImageFromArray(values if values.ndim == 3 else values[None])
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.ravel(direction).tolist())
    return image


def saved(path, image):
    sitk.WriteImage(image, str(path))
    return path


def flipped(image, axes):
    return sitk.Flip(image, [axis in axes for axis in range(3)], False)


STORED = {
    "columns mirrored": lambda image: flipped(image, [0]),
    "rows mirrored": lambda image: flipped(image, [1]),
    "rows and columns mirrored": lambda image: flipped(image, [0, 1]),
    "rows and columns exchanged": lambda image: sitk.PermuteAxes(image, [1, 0, 2]),
    "exchanged and mirrored": lambda image: flipped(sitk.PermuteAxes(image, [1, 0, 2]), [0]),
    "the slice's axis first": lambda image: sitk.PermuteAxes(image, [2, 0, 1]),
    "cut out": lambda image: image[8:57, 3:26],
    "cut out and mirrored": lambda image: flipped(image[8:57, 3:26], [0, 1]),
    "a thicker slice": lambda image: image_of(sitk.GetArrayFromImage(image), spacing=(0.5, 0.8, 9.0)),
    "rounded in the header": lambda image: image_of(
        sitk.GetArrayFromImage(image), spacing=(0.5 + 1e-8, 0.8 - 1e-8, 3.0), origin=(7.0001, -3.0, 11.0)
    ),
}
QUIET = ("the slice's axis first", "a thicker slice", "rounded in the header")


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_mask_comes_onto_the_grid_of_its_image(tmp_path, stored, suffix):
    values = np.random.default_rng(0).integers(0, 900, MASK.shape).astype(np.uint16)
    image_path = saved(tmp_path / f"image{suffix}", image_of(values))
    mask_path = saved(tmp_path / f"mask{suffix}", STORED[stored](image_of(MASK)))
    label = read_label_of(mask_path, [image_path])
    assert np.array_equal(label.array, MASK) and label.array.dtype == np.uint8
    notes = [note for note in label.notes if note.startswith("mask:")]
    assert bool(notes) == (stored not in QUIET), notes
    image, checked, faults = load_case(Case("a", (image_path,), mask_path))
    assert not faults and np.array_equal(checked.array, MASK) and image.array.shape[1:] == MASK.shape


OTHER_GRIDS = {
    "another place": {"origin": (8.3, -3.0, 11.0)},
    "half a pixel away": {"origin": tuple(np.array(ORIGIN) + OBLIQUE @ (0.25, 0, 0))},
    "a hundredth of a pixel away": {"origin": tuple(np.array(ORIGIN) + OBLIQUE @ (0.005, 0, 0))},
    "another slice": {"origin": (7.0, -3.0, 14.0)},
    "another spacing": {"spacing": (0.505, 0.8, 3.0)},
    "another angle": {"direction": np.eye(3)},
    "whole pixels away, so that it reaches out": {"origin": tuple(np.array(ORIGIN) + OBLIQUE @ (5 * 0.5, 0, 0))},
}


@pytest.mark.parametrize("grid", OTHER_GRIDS)
def test_any_other_difference_is_a_fault_of_the_case(tmp_path, grid):
    image_path = saved(tmp_path / "image.nii.gz", image_of(np.zeros(MASK.shape, np.uint16)))
    mask_path = saved(tmp_path / "mask.nii.gz", image_of(MASK, **OTHER_GRIDS[grid]))
    with pytest.raises(AutosegError, match=r"mask\.nii\.gz (does not lie on|reaches beyond).*image\.nii\.gz"):
        read_label_of(mask_path, [image_path])
    _, label, faults = load_case(Case("a", (image_path,), mask_path))
    assert label is None and len(faults) == 1 and "mask.nii.gz" in faults[0]


def test_channels_come_onto_the_grid_of_the_first(tmp_path):
    values = np.arange(2400, dtype=np.uint16).reshape(MASK.shape)
    first, second = saved(tmp_path / "0.mha", image_of(values)), saved(tmp_path / "1.mha", flipped(image_of(values), [1]))
    image = read_case([first, second])
    assert np.array_equal(image.array[0], image.array[1]) and "channel: rows mirrored" in image.notes[0]
    elsewhere = saved(tmp_path / "2.mha", image_of(values, origin=(9, 9, 9)))
    with pytest.raises(AutosegError, match=r"2\.mha"):
        read_case([first, elsewhere])


@pytest.mark.parametrize("stored", ["columns mirrored", "exchanged and mirrored", "cut out"])
def test_a_prediction_is_scored_where_it_lies(tmp_path, stored, caplog):
    for name in ("predictions", "references"):
        (tmp_path / name).mkdir()
    saved(tmp_path / "references" / "a.nii.gz", image_of(MASK))
    saved(tmp_path / "predictions" / "a.nii.gz", STORED[stored](image_of(MASK)))
    scores = evaluate_folders(tmp_path / "predictions", tmp_path / "references")
    assert [score.dice for score in scores.cases[0].classes.values()] == [1.0, 1.0]
    assert "prediction:" in caplog.text
    saved(tmp_path / "predictions" / "a.nii.gz", image_of(MASK, origin=(9, 9, 9)))
    with pytest.raises(AutosegError, match="does not lie on"):
        evaluate_folders(tmp_path / "predictions", tmp_path / "references")


def test_files_that_do_not_say_where_they_lie_are_compared_by_size_and_spacing_only(tmp_path):
    flat = sitk.GetImageFromArray(MASK)
    flat.SetSpacing(SPACING[:2])
    flat_path = saved(tmp_path / "flat.mha", flat)
    image_path = saved(tmp_path / "image.mha", image_of(np.zeros(MASK.shape, np.uint16)))
    assert np.array_equal(read_label_of(flat_path, [image_path]).array, MASK)
    assert np.array_equal(read_label(flat_path).array, MASK) and read_image(flat_path).spacing == (0.8, 0.5)
