import numpy as np
import pytest

from autoseg.prediction.postprocess import apply, clean
from autoseg.schema.dataset import label_scheme
from autoseg.schema.prediction import PostProcessing

TWO = label_scheme({"background": 0, "ring": 1, "dot": 2}, None)


@pytest.fixture
def labels():
    """A ring of class 1 with a hole and a dot of class 2 in it, a speck of class 1, and class 2 at the edge."""
    mask = np.zeros((50, 50), np.uint8)
    mask[5:25, 5:25] = 1
    mask[10:20, 10:20] = 0
    mask[12:14, 12:14] = 2
    mask[40, 40] = 1
    mask[44:50, 0:6] = 2
    return mask


def test_nothing_chosen_changes_nothing(labels):
    assert apply(labels, TWO, {}) is labels
    assert np.array_equal(apply(labels, TWO, {"ring": PostProcessing()}), labels)


def test_specks_are_dropped_and_others_kept(labels):
    result = apply(labels, TWO, {"ring": PostProcessing(min_object_fraction=2 / 2500)})
    assert result[40, 40] == 0 and (result == 1).sum() == (labels == 1).sum() - 1
    assert np.array_equal(result == 2, labels == 2)


def test_the_largest_object_is_kept(labels):
    result = apply(labels, TWO, {"dot": PostProcessing(keep_largest=True)})
    assert not (result[:30] == 2).any() and (result[44:50, 0:6] == 2).all()
    assert labels[40, 40] == 1


def test_objects_that_touch_at_a_corner_are_one_and_of_two_alike_the_first_is_kept():
    mask = np.zeros((9, 9), bool)
    mask[0:2, 4:6] = mask[2:4, 6:8] = True
    mask[6:8, 0:4] = True
    first = mask.copy()
    first[6:8] = False
    assert np.array_equal(clean(mask, PostProcessing(keep_largest=True)), first)
    assert np.array_equal(clean(mask, PostProcessing(min_object_fraction=5 / 81)), mask)


def test_holes_are_filled_without_taking_other_classes(labels):
    result = apply(labels, TWO, {"ring": PostProcessing(fill_holes=True)})
    assert (result[10:20, 10:20] != 0).all() and (result == 2).sum() == (labels == 2).sum()


def test_bays_are_no_holes_and_diagonal_gaps_let_nothing_out():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    mask[3:6, 3:6] = False
    assert clean(mask, PostProcessing(fill_holes=True))[2:7, 2:7].all()
    mask[2, 2] = False  # the ring is still 8-connected, its inside 4-separated from the outside
    assert clean(mask, PostProcessing(fill_holes=True))[4, 4]
    mask[2, 4] = False
    assert not clean(mask, PostProcessing(fill_holes=True))[4, 4]


def test_empty_masks_stay_empty():
    empty = np.zeros((5, 5), bool)
    assert not clean(empty, PostProcessing(0.1, True, True)).any()


def test_regions_write_the_value_they_paint():
    scheme = label_scheme({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
    labels = np.zeros((20, 20), np.uint8)
    labels[2:12, 2:12] = 1
    labels[4:8, 4:8] = 2
    labels[5, 5] = 0
    assert apply(labels, scheme, {"whole": PostProcessing(fill_holes=True)})[5, 5] == 1


def test_words():
    assert str(PostProcessing()) == "nothing"
    text = "objects below 0.1000% of the image dropped, the largest object kept, holes filled"
    assert str(PostProcessing(0.001, True, True)) == text
