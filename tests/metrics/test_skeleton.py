import math

import numpy as np
import pytest
from skimage.morphology import skeletonize

from autoseg.metrics.skeleton import area_and_border, cldice


def lines(*rows, width=3, size=(60, 80)):
    mask = np.zeros(size, bool)
    for row in rows:
        mask[row : row + width, 5:75] = True
    return mask


def test_cldice_equals_the_definition_on_full_images():
    draw = np.random.default_rng(0)
    first, second = lines(10, 30, 50), lines(11, 40) | (draw.random((60, 80)) > 0.95)
    precision = (skeletonize(first) & second).sum() / skeletonize(first).sum()
    recall = (skeletonize(second) & first).sum() / skeletonize(second).sum()
    assert cldice(first, second) == pytest.approx(2 * precision * recall / (precision + recall))
    assert cldice(first, second) == pytest.approx(cldice(second, first))


def test_cldice_ignores_width_but_not_missing_lines():
    assert cldice(lines(10, width=5), lines(11, width=3)) == 1
    assert cldice(lines(10), lines(10, 30)) == pytest.approx(2 / 3)
    assert cldice(lines(10), lines(30)) == 0


def test_empty_masks():
    nothing = np.zeros((60, 80), bool)
    assert cldice(nothing, lines(10)) == cldice(lines(10), nothing) == 0
    assert math.isnan(cldice(nothing, nothing))
    with pytest.raises(ValueError, match="shape"):
        cldice(nothing, np.zeros((2, 2), bool))


def test_mean_width_of_a_line():
    area, length = area_and_border(lines(10, width=1))
    assert area == length == 70
    area, length = area_and_border(lines(10, width=4))
    assert 2 * area / length == pytest.approx(4, rel=0.05)
    assert area_and_border(np.zeros((4, 4), bool)) == (0, 0)
