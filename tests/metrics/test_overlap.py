import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou

from autoseg.metrics.overlap import Counts, counts, total

MEMBERS = {"a": (1,), "b": (2,), "both": (1, 2), "absent": (7,)}


def maps(values, dtype=np.uint8, seed=0):
    draw = np.random.default_rng(seed)
    return tuple(draw.choice(values, size=(40, 30)).astype(dtype) for _ in range(2))


def by_hand(prediction, reference, member, valid):
    predicted, referred = np.isin(prediction, member) & valid, np.isin(reference, member) & valid
    return Counts(int((predicted & referred).sum()), int((predicted & ~referred).sum()), int((referred & ~predicted).sum()))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 1, 2), np.uint8),
        ((0, 1, 2, 255), np.uint8),
        ((0, 1, 2, 16), np.int64),
        ((0, 1, 2, 60000), np.uint16),
        ((-1, 1, 2), np.int16),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_counts_equal_those_of_separate_masks(values, dtype, masked):
    prediction, reference = maps(values, dtype)
    ignore = np.random.default_rng(5).random(prediction.shape) < 0.3 if masked else None
    valid = ~ignore if ignore is not None else np.ones(prediction.shape, bool)
    result = counts(prediction, reference, MEMBERS, ignore)
    assert result == {name: by_hand(prediction, reference, member, valid) for name, member in MEMBERS.items()}
    assert result["a"].tp > 0 and result["absent"] == Counts(0, 0, 0)


def test_classes_with_values_of_three_digits():
    prediction, reference = maps((0, 85, 170, 255))
    members = {"x": (85, 170), "y": (255,)}
    valid = np.ones(prediction.shape, bool)
    expected = {name: by_hand(prediction, reference, member, valid) for name, member in members.items()}
    assert counts(prediction, reference, members) == expected


def test_metrics_agree_with_monai():
    prediction, reference = maps((0, 1, 2))
    for name, member in (("a", (1,)), ("both", (1, 2))):
        ours = counts(prediction, reference, MEMBERS)[name]
        masks = [torch.from_numpy(np.isin(one, member))[None, None].float() for one in (prediction, reference)]
        assert ours.dice == pytest.approx(compute_dice(*masks).item(), abs=1e-6)
        assert ours.iou == pytest.approx(compute_iou(*masks).item(), abs=1e-6)


def test_metrics_by_hand():
    some = Counts(tp=6, fp=2, fn=4)
    assert (some.dice, some.iou, some.precision, some.recall) == (12 / 18, 6 / 12, 6 / 8, 6 / 10)


def test_empty_masks():
    neither, missed, invented = Counts(0, 0, 0), Counts(0, 0, 5), Counts(0, 5, 0)
    assert all(math.isnan(value) for value in (neither.dice, neither.iou, neither.precision, neither.recall))
    assert (missed.dice, missed.iou, missed.recall) == (0, 0, 0) and math.isnan(missed.precision)
    assert (invented.dice, invented.iou, invented.precision) == (0, 0, 0) and math.isnan(invented.recall)


def test_counts_add_up():
    assert total([Counts(1, 2, 3), Counts(10, 20, 30)]) == Counts(11, 22, 33)
    assert total([]) == Counts(0, 0, 0)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        counts(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), MEMBERS)


def test_errors_of_the_area_have_a_sign_or_not():
    too_much, too_little, neither = Counts(tp=6, fp=6, fn=4), Counts(tp=5, fp=0, fn=5), Counts(0, 3, 0)
    assert (too_much.area_bias, too_much.area_error) == (0.2, 0.2)
    assert (too_little.area_bias, too_little.area_error) == (-0.5, 0.5)
    assert math.isnan(neither.area_bias) and math.isnan(neither.area_error)
    assert (too_much + too_little).area_bias == pytest.approx((6 - 9) / 20)
