import cv2
import numpy as np
import pytest
import torch

from autoseg.inference import resample_to_original
from autoseg.schema.dataset import LabelScheme, label_scheme

TWO = label_scheme({"background": 0, "lesion": 1}, None)
FOUR = label_scheme({"background": 0, "a": 1, "b": 2, "c": 3}, None)
NESTED = label_scheme({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))


def softmax_maps(outputs, size, seed=0):
    noise = np.random.default_rng(seed).normal(size=(outputs, *size)).astype(np.float32)
    blurred = np.stack([cv2.GaussianBlur(channel, (0, 0), 2) for channel in noise]) * 8
    return torch.from_numpy(blurred).softmax(0)


@pytest.mark.parametrize("scheme", [TWO, FOUR], ids=["two", "four"])
@pytest.mark.parametrize("size", [(40, 56), (91, 133), (17, 201), (20, 28)])
@pytest.mark.parametrize("band", [1 << 21, 500])
def test_label_map_is_the_argmax_of_the_resized_probabilities(scheme, size, band, monkeypatch):
    monkeypatch.setattr(resample_to_original, "_BAND_PIXELS", band)
    maps = softmax_maps(scheme.outputs, (40, 56))
    resized = resample_to_original.resize(maps, size)
    labels = resample_to_original.label_map(maps, scheme, size)
    assert labels.shape == size and labels.dtype == np.uint8
    # If two maps are almost equal, rounding decides.
    sorted_maps = np.sort(resized, axis=0)
    unambiguous = sorted_maps[-1] - sorted_maps[-2] > 1e-5
    assert unambiguous.mean() > 0.99
    assert np.array_equal(labels[unambiguous], resized.argmax(0)[unambiguous])
    assert len(np.unique(labels)) == scheme.outputs


def test_resizing_follows_pixel_centres():
    step = np.zeros((1, 4, 4), np.float32)
    step[:, :, 2:] = 1
    row = resample_to_original.resize(step, (4, 16))[0, 0]
    assert np.allclose(row, 1 - row[::-1])
    assert row[7] < 0.5 < row[8]


def test_regions_are_painted_in_order():
    maps = np.zeros((2, 1, 4), np.float32)
    maps[0, 0] = [0.9, 0.9, 0.2, 0.5]
    maps[1, 0] = [0.1, 0.8, 0.8, 0.5]
    assert resample_to_original.label_map(maps, NESTED, (1, 4)).tolist() == [[1, 2, 2, 0]]


def test_the_first_of_equal_classes_is_chosen():
    assert resample_to_original.label_map(np.full((2, 2, 2), 0.5, np.float32), TWO, (2, 2)).max() == 0
    assert resample_to_original.label_map(np.full((4, 2, 2), 0.25, np.float32), FOUR, (3, 3)).max() == 0


def test_values_above_255_need_a_wider_type():
    scheme = LabelScheme(names=("x",), members=((300,),), regions=True, paint=(300,))
    labels = resample_to_original.label_map(np.ones((1, 2, 2), np.float32), scheme, (2, 2))
    assert labels.dtype == np.uint16 and labels.max() == 300


def test_the_number_of_maps_must_equal_the_outputs():
    with pytest.raises(ValueError, match="3 maps for 2 outputs"):
        resample_to_original.label_map(np.zeros((3, 2, 2), np.float32), TWO, (2, 2))
